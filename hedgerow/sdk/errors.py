"""What can go wrong between a client and its workspace."""

from __future__ import annotations

from hedgerow.contracts.work import Activity, Problem
from hedgerow.errors import HedgerowError, UnavailableError, UserError


class ServerUnreachable(UnavailableError):
    """Nothing answers where the workspace should be."""

    key = "server_unreachable"
    message = "No Hedgerow answers at {where}: {problem}"
    remedy = "Start it with `hedgerow up`, or point HEDGEROW_URL or HEDGEROW_WORKSPACE at the right one."


class AnswerCutOff(ServerUnreachable):
    """An answer ended in the middle: what gave it failed, or the connection did."""

    key = "answer_cut_off"
    message = "The answer of {where} was cut off: {problem}"
    remedy = "Ask again. When a device gave it: see how that is, and whether its docker engine runs (hedgerow device show NAME)."


class ServerDidNotStart(UnavailableError):
    """A control plane started for a folder ended at once."""

    key = "server_did_not_start"
    message = "The control plane of {folder} did not start: {problem}"
    remedy = "Run `hedgerow up --workspace {folder}` to see why."


class NotARegularFile(UserError):
    """Only plain files can be registered."""

    key = "not_a_regular_file"
    message = "{path} cannot be registered: it is {what}"
    remedy = "Register plain files, or folders of plain files; links must stay inside the folder."


class NothingToRegister(UserError):
    """A path that holds no file."""

    key = "nothing_to_register"
    message = "{path} holds no files"
    remedy = "Give the path of a model file, or of a folder with one."


class NoSuchFile(UserError):
    """A file that a model version does not have."""

    key = "no_such_file"
    message = "{model} has no file {path}"
    remedy = "{hint}"


class EmptyFilter(UserError):
    """A filter without a value would give everything, which is hardly ever meant."""

    key = "empty_filter"
    message = "The filter {name} is empty, so it would leave everything in"
    remedy = "Give it a value, or leave it out to get everything."


class FileNamesCollide(UserError):
    """Two of the paths would become the same file of the model."""

    key = "file_names_collide"
    message = "{first} and {second} would both be the file {name} of the model"
    remedy = "Put them into one folder under names of their own, and give that folder."


class FileChanged(UserError):
    """A file was written to while it was being read; nothing was registered."""

    key = "file_changed"
    message = "{path} changed while it was read"
    remedy = "Wait until whatever writes it is done, then repeat the command."


class DownloadDamaged(UnavailableError):
    """A download does not have the content that its record promises; nothing of it was kept."""

    key = "download_damaged"
    message = "{path} arrived with another content than recorded ({found} instead of {expected})"
    remedy = "Try again; if it stays, the workspace's blobs are damaged (hedgerow doctor)."


class ApiError(HedgerowError):
    """The server's answer was an error; ``problem`` is it, ``status`` the HTTP status."""

    key = "api_error"
    message = "{text}"
    remedy = "{advice}"

    def __init__(self, problem: Problem, status: int) -> None:
        super().__init__(text=problem.message, advice=problem.remedy)
        self.problem = problem
        self.status = status


class ActivityFailed(HedgerowError):
    """Long work ended without success; ``activity`` says how far it came."""

    key = "activity_failed"
    message = "{kind} of {subject} {state}: {text}"
    remedy = "{advice}"

    def __init__(self, activity: Activity) -> None:
        problem = activity.problem or Problem(code=activity.state, message="somebody asked it to stop", remedy="Start it again.")
        super().__init__(
            kind=activity.kind, subject=activity.subject, state=activity.state, text=problem.message, advice=problem.remedy
        )
        self.activity = activity


class RequirementsUnreadable(UserError):
    """A requirements.txt or conda file on this disk that cannot be sent."""

    key = "requirements_unreadable"
    message = "{path} cannot be read: {problem}"
    remedy = "Correct the file, or put the lines that count into one of its own."


class NoEnvironmentAsked(UserError):
    """A model whose files say nothing of the packages that it needs."""

    key = "no_environment_asked"
    message = "Model {model} does not say which packages it needs"
    remedy = "Only folders that MLflow saved do; name the packages: hedgerow env create NAME --requirements FILE"


class OutputExists(UserError):
    """A file that would be overwritten."""

    key = "output_exists"
    message = "{path} is there already"
    remedy = "Choose another name, or overwrite it with --force."


class BackupIncomplete(UserError):
    """The workspace that was backed up lacks content that its records promise."""

    key = "backup_incomplete"
    message = "The workspace has lost the content of {count} blobs itself (such as {digest}: {problem}); no backup was kept"
    remedy = "Upload that content again (hedgerow doctor names it), or keep the backup as it is with --accept-lost."


class NoSuchPlatform(UserError):
    """A platform that an image was not built for."""

    key = "no_such_platform"
    message = "Image {image} is not for {platform}; it is for {have}"
    remedy = "Name one of those with --platform, or build it for that platform too."


class ImageNotLoadable(UserError):
    """An image that no container engine can run."""

    key = "image_not_loadable"
    message = "Image {image} is of the kind {kind}, which runs in no container engine"
    remedy = "Run it with `hedgerow service deploy` or on a device, or write it to a file with `hedgerow image export`."


class EngineUnreachable(UnavailableError):
    """No container engine answers, or it will not take the image."""

    key = "engine_unreachable"
    message = "The container engine at {host} did not take the image: {problem}"
    remedy = (
        "Start it (systemctl start docker), or say where it is with --engine HOST (unix:///…, tcp://…) or DOCKER_HOST. "
        "Layers in zstd need Docker 23 or newer."
    )


class DockerLoginUnknown(UserError):
    """Neither `docker login` nor `podman login` left one for the registry."""

    key = "docker_login_unknown"
    message = "No login for {registry} is known on this machine"
    remedy = "Run `docker login {registry}` or `podman login {registry}`, or name a user and a password, or a secret."


class ImageNotServable(UserError):
    """What ``hedgerow serve --image`` was given cannot be served on this machine."""

    key = "image_not_servable"
    message = "{what} cannot be served: {problem}"
    remedy = "{advice}"


class AgentWheelInvalid(UserError):
    """A file that devices could not run as a release of the agent."""

    key = "agent_wheel_invalid"
    message = "{path} is no wheel of the agent: {problem}"
    remedy = "Build one with `python -m build --wheel`, or take the one of a release of Hedgerow, under its own name."
