"""The twin protocol where messages are lost, come twice and late, and both ends are started again or lose their disks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from edge_agent.link.twins import AUDIT_S, FLIGHTS_MAX, MIN_INTERVAL_S, SMALL_BYTES, TwinSync
from edge_agent.twins.held import Held, held
from hedgerow.contracts.merge_patch import json_text, merge_patch, patch_between
from hedgerow.contracts.twins import TwinAck, TwinReport
from registry.hub.twins import Stored, ack_of, applied

KEYS = st.sampled_from(["a", "b", "c", "d"])
LEAVES = st.one_of(st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, 1.0, -0.0]), st.text(max_size=3), st.just([None, 1]))
OBJECTS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    KEYS, st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=6), max_size=4
)
DEVICE = "d-1"


@settings(max_examples=100, deadline=None)
@given(before=OBJECTS, after=OBJECTS)
def test_a_patch_makes_the_one_of_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    patch = patch_between(before, after)
    assert json_text(merge_patch(before, patch)) == json_text(after)
    assert (patch == {}) == (json_text(before) == json_text(after))


class Files:
    """What modules reported, as the device's disk has it."""

    def __init__(self) -> None:
        self.files: dict[str, Held] = {}
        self.epochs = 0

    def held(self) -> Mapping[str, Held]:
        return dict(self.files)

    def begin_epoch(self, module: str, epoch: str) -> None:
        found = self.files.get(module)
        if found is not None and found.epoch == epoch:
            self.epochs += 1
            self.files[module] = Held(f"{epoch}.{self.epochs}", found.version, found.text, found.digest)

    def report(self, module: str, properties: dict[str, Any], epoch: str = "e") -> None:
        before = self.files.get(module)
        self.files[module] = held(before.epoch if before else epoch, before.version + 1 if before else 1, properties)


class Hub:
    """What the hub has, by module."""

    def __init__(self) -> None:
        self.session = 0
        self.stored: dict[str, Stored] = {}

    def take(self, report: TwinReport) -> TwinAck | None:
        if report.session != str(self.session):
            return None
        stored = applied(self.stored.get(report.module), report)
        if isinstance(stored, Stored):
            self.stored[report.module] = stored
        return ack_of(report, self.stored.get(report.module))


def _same(files: Files, hub: Hub) -> bool:
    return {name: (one.epoch, one.version, one.text) for name, one in files.files.items()} == {
        name: (one.epoch, one.version, json_text(one.reported)) for name, one in hub.stored.items()
    }


class Line:
    """A device and a hub, and messages between them that the test may lose, keep back or let come again."""

    def __init__(self, files: Files | None = None, hub: Hub | None = None) -> None:
        self.files, self.hub = files or Files(), hub or Hub()
        self.now_s = 100.0
        self.up: list[TwinReport] = []
        self.down: list[TwinAck] = []
        self.sent: list[TwinReport] = []
        self.start()

    def start(self) -> None:
        self.sync = TwinSync(DEVICE, self.files)
        self.greet()

    def greet(self) -> None:
        self.hub.session += 1
        self.sync.opened(str(self.hub.session), "i")

    def send(self) -> list[TwinReport]:
        made = self.sync.outgoing(self.now_s)
        made += self.sync.outgoing(self.now_s)  # another epoch begins at once here
        wake_s = self.sync.next_wake_s()
        assert wake_s is None or wake_s > self.now_s, "what was done is not due"
        self.up += made
        self.sent += made
        return made

    def run(self, rounds: int = 50) -> None:
        """Everything arrives, in order; time jumps to whatever is due within an hour."""
        for _ in range(rounds):
            self.send()
            up, self.up = self.up, []
            self.down += [ack for report in up if (ack := self.hub.take(report)) is not None]
            down, self.down = self.down, []
            for ack in down:
                self.sync.acknowledged(ack, self.now_s)
            wake_s = self.sync.next_wake_s()
            if wake_s is not None and wake_s < self.now_s + AUDIT_S / 2:
                self.now_s = max(self.now_s, wake_s)


def test_what_a_module_reports_is_sent_once_and_then_only_what_changed() -> None:
    line = Line()
    line.files.report("m", {"a": 1, "b": {"c": 2, "d": "x" * SMALL_BYTES}})
    line.run()
    line.files.report("m", {"a": 1, "b": {"d": "x" * SMALL_BYTES}, "e": True})
    line.run()
    probe, whole, patch = line.sent
    assert (probe.version, probe.base_version, probe.reported) == (1, 1, {})
    assert (whole.version, whole.base_version) == (1, None)
    assert (patch.version, patch.base_version, patch.reported) == (2, 1, {"b": {"c": None}, "e": True})
    assert _same(line.files, line.hub)


def test_a_module_that_reports_all_the_time_sends_the_newest_once_a_second() -> None:
    line = Line()
    for number in range(300):
        line.files.report("m", {"n": number})
        line.send()
        for report in line.up:
            line.sync.acknowledged(line.hub.take(report) or _never(), line.now_s)
        line.up.clear()
        line.now_s += 0.01
    assert [report.version for report in line.sent] == [1, 101, 201] == [1 + n * int(100 * MIN_INTERVAL_S) for n in range(3)]


def test_a_hub_that_has_everything_is_asked_once_in_each_session_and_told_nothing() -> None:
    line = Line()
    line.files.report("m", {"a": "x" * SMALL_BYTES})
    line.run()
    line.sent.clear()
    line.start()
    line.run()
    assert [(report.base_version, report.reported) for report in line.sent] == [(1, {})]
    line.sync.opened(str(line.hub.session), "i")  # a renewal
    line.run()
    assert len(line.sent) == 1
    line.now_s += AUDIT_S
    line.run()
    assert len(line.sent) == 2


def test_a_copied_card_is_noticed_by_the_digest_and_counts_anew() -> None:
    first = Line()
    first.files.report("m", {"a": 1})
    first.run()
    copy = Files()
    copy.files = dict(first.files.files)
    first.files.report("m", {"a": 2})
    first.run()
    copy.report("m", {"a": 3})  # the same version, something else
    second = Line(copy, first.hub)
    second.run()
    assert _same(second.files, second.hub)
    assert second.files.files["m"].epoch != "e"
    first.greet()
    first.run()
    assert _same(first.files, first.hub)


def test_a_disk_that_went_back_in_time_is_noticed_by_a_hub_that_is_ahead() -> None:
    line = Line()
    line.files.report("m", {"a": 1})
    before = dict(line.files.files)
    line.files.report("m", {"a": 2})
    line.run()
    line.files.files = before
    line.start()
    line.run()
    assert _same(line.files, line.hub)
    assert json.loads(line.files.files["m"].text) == {"a": 1}


def test_a_hub_of_before_a_backup_gets_the_whole() -> None:
    line = Line()
    for number in range(5):
        line.files.report("m", {"n": number, "large": "x" * SMALL_BYTES})
        line.run()
        if number == 2:
            kept = dict(line.hub.stored)
    line.hub.stored = kept
    line.sync.opened(str(line.hub.session), "another incarnation")
    line.sent.clear()
    line.run()
    assert [report.base_version for report in line.sent] == [5, None]
    assert _same(line.files, line.hub)


def test_few_reports_are_on_their_way_at_once_and_all_of_them_arrive() -> None:
    line = Line()
    for number in range(3 * FLIGHTS_MAX):
        line.files.report(f"m{number}", {"n": number})
    assert len(line.send()) == FLIGHTS_MAX
    assert line.send() == []
    assert (line.sync.next_wake_s() or 0.0) > line.now_s  # nobody looks again and again meanwhile
    line.run()
    assert _same(line.files, line.hub)


def test_what_could_not_be_handed_to_the_connection_is_made_again_at_once() -> None:
    line = Line()
    line.files.report("m", {"n": 1})
    [report] = line.sync.outgoing(line.now_s)
    line.sync.unsent(report)
    assert line.sync.outgoing(line.now_s) == [report]


def test_nothing_is_said_without_a_session() -> None:
    line = Line()
    line.files.report("m", {"n": 1})
    line.sync.closed()
    assert line.sync.outgoing(line.now_s) == []
    assert line.sync.next_wake_s() is None


def _never() -> TwinAck:
    raise AssertionError("the hub did not answer")


class Weather(RuleBasedStateMachine):
    """Whatever happens between a device and its hub: when it is over, the hub has what the device has."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line()
        self.lost_epochs = 0
        self.backups: list[dict[str, Stored]] = [{}]

    @rule(module=st.sampled_from(["m", "n"]), properties=OBJECTS, large=st.booleans())
    def report(self, module: str, properties: dict[str, Any], large: bool) -> None:
        self.line.files.report(module, {**properties, **({"x": "x" * SMALL_BYTES} if large else {})}, f"e{self.lost_epochs}")

    @rule()
    def send(self) -> None:
        self.line.send()

    @precondition(lambda self: self.line.up)
    @rule(data=st.data(), again=st.booleans())
    def arrive(self, data: st.DataObject, again: bool) -> None:
        place = data.draw(st.integers(0, len(self.line.up) - 1))
        report = self.line.up[place] if again else self.line.up.pop(place)
        ack = self.line.hub.take(report)
        self.line.down += [] if ack is None else [ack]

    @precondition(lambda self: self.line.down)
    @rule(data=st.data(), again=st.booleans())
    def be_answered(self, data: st.DataObject, again: bool) -> None:
        place = data.draw(st.integers(0, len(self.line.down) - 1))
        ack = self.line.down[place] if again else self.line.down.pop(place)
        self.line.sync.acknowledged(ack, self.line.now_s)

    @rule(up=st.booleans())
    def lose(self, up: bool) -> None:
        (self.line.up if up else self.line.down).clear()

    @rule(seconds=st.sampled_from([0.5, 2.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.line.now_s += seconds

    @rule()
    def restart_the_agent(self) -> None:
        self.line.start()

    @rule()
    def greet_again(self) -> None:
        self.line.greet()

    @rule(module=st.sampled_from(["m", "n"]))
    def lose_a_file(self, module: str) -> None:
        self.lost_epochs += 1
        if self.line.files.files.pop(module, None) is not None:
            self.line.files.report(module, {"anew": True}, f"e{self.lost_epochs}")
        self.line.start()

    @rule()
    def back_up_the_hub(self) -> None:
        self.backups.append(dict(self.line.hub.stored))

    @rule(data=st.data())
    def restore_the_hub(self, data: st.DataObject) -> None:
        self.line.hub.stored = dict(data.draw(st.sampled_from(self.backups)))
        self.line.greet()

    @rule(properties=OBJECTS)
    def meet_a_copy(self, properties: dict[str, Any]) -> None:
        """Another agent with a copy of this card takes the session, reports, and goes."""
        copy = Files()
        copy.files = dict(self.line.files.files)
        copy.epochs = 1000 + self.line.files.epochs
        copy.report("m", properties, "copy")
        other = Line(copy, self.line.hub)
        other.run()
        self.line.greet()

    def teardown(self) -> None:
        self.line.run()
        self.line.now_s += AUDIT_S
        self.line.run()
        stored = {name: one for name, one in self.line.hub.stored.items() if name in self.line.files.files}
        self.line.hub.stored = stored  # what only a copy had goes with the next desired state
        assert _same(self.line.files, self.line.hub)


TestWeather = Weather.TestCase
TestWeather.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
