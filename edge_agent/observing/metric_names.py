"""Every metric of ``/metrics``: its type and what it says. Names of IoT Edge where the meaning is the same.

IoT Edge types some of its counters as gauges; the names are kept here and the types are right. A name that is counted or
sampled anywhere in the agent stands in this table, or the page would fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Kind = Literal["counter", "gauge", "summary"]

AGENT: Mapping[str, tuple[Kind, str]] = {
    "edgeAgent_module_start_total": ("counter", "Starts of modules by the agent"),
    "edgeAgent_module_stop_total": ("counter", "Stops of modules by the agent"),
    "edgeAgent_module_prepare_update_total": ("counter", "Images fetched for modules"),
    "edgeAgent_command_latency_seconds": ("summary", "Time that an action on a module took, by command"),
    "edgeAgent_iothub_syncs_total": ("counter", "Desired states taken from the hub, repeats included"),
    "edgeAgent_unsuccessful_iothub_syncs_total": ("counter", "Desired states from the hub that were refused"),
    "edgeAgent_deployment_time_seconds": ("counter", "Time that applying desired states took, in all"),
    "edgeagent_direct_method_invocations_count": ("counter", "Direct methods that the agent carried out, by name"),
    "edgeAgent_total_time_expected_running_seconds": ("counter", "Time a module was wanted running"),
    "edgeAgent_total_time_running_correctly_seconds": ("counter", "Time a module was wanted running and ran"),
    "edgeAgent_iotedged_uptime_seconds": ("gauge", "Seconds since this agent started"),
    "edgeAgent_host_uptime_seconds": ("gauge", "Seconds since the machine started"),
    "edgeAgent_available_disk_space_bytes": ("gauge", "Free space on the disk of the state folder"),
    "edgeAgent_total_disk_space_bytes": ("gauge", "Size of the disk of the state folder"),
    "edgeAgent_used_memory_bytes": ("gauge", "Memory in use by a module, the agent (edgeAgent) or the machine (host)"),
    "edgeAgent_total_memory_bytes": ("gauge", "Memory that a module may use at most (host: of the machine)"),
    "edgeAgent_used_cpu_percent": ("gauge", "CPU time used since the last look, in percent of all cores"),
    "edgeAgent_created_pids_total": ("gauge", "Processes of a module"),
    "edgeAgent_total_network_in_bytes": ("counter", "Bytes received by a module or the machine"),
    "edgeAgent_total_network_out_bytes": ("counter", "Bytes sent by a module or the machine"),
    "edgeAgent_total_disk_read_bytes": ("counter", "Bytes read from disks by a module or the agent"),
    "edgeAgent_total_disk_write_bytes": ("counter", "Bytes written to disks by a module or the agent"),
    "edgeAgent_metadata": ("gauge", "Always 1; labels say what runs here"),
}

HUB: Mapping[str, tuple[Kind, str]] = {
    "edgehub_gettwin_total": ("counter", "Twins that modules asked for"),
    "edgehub_messages_received_total": ("counter", "Telemetry messages stored for modules"),
    "edgehub_messages_sent_total": ("counter", "Telemetry messages that the other side has acknowledged"),
    "edgehub_reported_properties_total": ("counter", "Reported properties taken from modules"),
    "edgehub_message_size_bytes": ("summary", "Size of the messages that modules handed over"),
    "edgehub_gettwin_duration_seconds": ("summary", "Time that answering for a twin took"),
    "edgehub_message_send_duration_seconds": ("summary", "Time from handing a batch to the link to its acknowledgement"),
    "edgehub_message_process_duration_seconds": ("summary", "Time from taking a message to its commit"),
    "edgehub_reported_properties_update_duration_seconds": ("summary", "Time that storing reported properties took"),
    "edgehub_direct_method_duration_seconds": ("summary", "Time that a direct method of a module took"),
    "edgehub_direct_methods_total": ("counter", "Direct methods passed on to modules"),
    "edgehub_queue_length": ("gauge", "Telemetry messages that the other side has not acknowledged"),
    "edgehub_messages_dropped_total": ("counter", "Messages dropped, by reason"),
    "edgehub_messages_unack_total": ("counter", "Messages not acknowledged to their module because storing failed"),
    "edgehub_offline_count_total": ("counter", "How often the session with the hub was lost"),
    "edgehub_offline_duration_seconds": ("summary", "How long the agent was without a session, each time"),
    "edgehub_operation_retry_total": ("counter", "Operations towards the hub that were tried again"),
    "edgehub_client_connect_failed_total": ("counter", "Modules that were not let in"),
    "edgehub_connected_clients": ("gauge", "Modules connected to the local hub now"),
    "edgehub_client_connect_success_total": ("counter", "Modules that connected to the local hub"),
    "edgehub_client_disconnect_total": ("counter", "Modules that left the local hub"),
}

OURS: Mapping[str, tuple[Kind, str]] = {
    "hedgerow_agent_connected": ("gauge", "1 while the broker is connected"),
    "hedgerow_agent_session": ("gauge", "1 while the hub grants a session"),
    "hedgerow_agent_revoked": ("gauge", "1 once the hub said that this device was revoked"),
    "hedgerow_agent_certificate_expiry_seconds": ("gauge", "Time until the device's certificate for the broker ends"),
    "hedgerow_agent_desired_version": ("gauge", "Version of the desired state in force"),
    "hedgerow_agent_desired_refused_total": ("counter", "Desired states refused, by key of the reason"),
    "hedgerow_agent_module_state": ("gauge", "1 for the state that a module is in"),
    "hedgerow_agent_module_restarts_total": ("counter", "Restarts of a module, by policy"),
    "hedgerow_agent_update_commits_total": ("counter", "New versions of modules that were kept after their trial"),
    "hedgerow_agent_update_rollbacks_total": ("counter", "New versions of modules that were taken back"),
    "hedgerow_agent_updates_refused_total": ("counter", "New versions of modules that were refused before the switch"),
    "hedgerow_agent_shadow_state": ("gauge", "1 for the state that a module's shadow is in"),
    "hedgerow_agent_shadow_compared_total": ("counter", "Requests tried on a module and its shadow"),
    "hedgerow_agent_shadow_different_total": ("counter", "Requests that the shadow answered differently"),
    "hedgerow_agent_shadow_failed_total": ("counter", "Requests that only the shadow failed"),
    "hedgerow_agent_shadow_dropped_total": ("counter", "Requests that were not tried on the shadow: it was away, or too slow"),
    "hedgerow_agent_shadow_worst_difference": ("gauge", "Largest difference of two numbers in the two answers"),
    "hedgerow_agent_shadow_latency_seconds": ("gauge", "Median time of the newest answers, of module and shadow"),
    "hedgerow_agent_outbox_queued_bytes": ("gauge", "Bytes that the hub has not acknowledged"),
    "hedgerow_agent_outbox_kept_bytes": ("gauge", "Bytes in the buffer, acknowledged ones included"),
    "hedgerow_agent_outbox_local_messages": ("gauge", "Messages that wait for inputs of modules"),
    "hedgerow_agent_written_bytes_total": ("counter", "Bytes written to the disk since the agent started, by part"),
    "hedgerow_agent_outbox_dropped_total": ("counter", "Messages dropped by quota, reported to the hub as gaps"),
    "hedgerow_agent_batches_sent_total": ("counter", "Telemetry batches handed to the link, repeats included"),
    "hedgerow_agent_acks_total": ("counter", "Acknowledgements that arrived"),
    "hedgerow_agent_messages_refused_total": ("counter", "Messages from the broker that were dropped, by key of the reason"),
    "hedgerow_agent_intake_refused_total": ("counter", "Telemetry messages not taken from modules, by key of the reason"),
    "hedgerow_agent_scrapes_total": ("counter", "Readings of modules' metrics pages, by outcome"),
    "hedgerow_agent_garbage_freed_bytes_total": ("counter", "Disk space given back by the agent's own clearing up"),
    "process_resident_memory_bytes": ("gauge", "Resident memory of the agent"),
    "process_virtual_memory_bytes": ("gauge", "Address space of the agent"),
    "process_cpu_seconds_total": ("counter", "CPU time used by the agent"),
    "process_open_fds": ("gauge", "Open file descriptors of the agent"),
    "process_max_fds": ("gauge", "File descriptors that the agent may open at most"),
    "process_start_time_seconds": ("gauge", "When the agent started, in seconds since 1970"),
}

NAMES: Mapping[str, tuple[Kind, str]] = {**AGENT, **HUB, **OURS}
