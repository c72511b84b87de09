"""What can go wrong in the control plane, in words for the person who asked."""

from __future__ import annotations

from hedgerow.errors import AccessError, ConflictError, ForbiddenError, NotFoundError, UnavailableError, UserError


class RecordNotFound(NotFoundError):
    """A record that was named does not exist."""

    key = "not_found"
    message = "There is no {kind} {name}"
    remedy = "See what there is with: hedgerow {command} list"


class NameTaken(ConflictError):
    """A record of this name exists already."""

    key = "name_taken"
    message = "There is already a {kind} named {name}"
    remedy = "Choose another name, or delete that one first."


class NothingBesideImage(NotFoundError):
    """An image has no build report or bill of materials: it was pushed from elsewhere, or built by an older Hedgerow."""

    key = "nothing_beside_image"
    message = "Image {name} has no {what}: it was pushed from elsewhere, or built before there were any"
    remedy = "Build it again here; every build records them."


class TagTaken(ConflictError):
    """A tag that is a number is a version's, and a version never changes."""

    key = "tag_taken"
    message = "{name} cannot be pushed as version {tag}: {problem}"
    remedy = "Push it under another tag: it becomes the next version, and is pulled by that tag."


class InUse(ConflictError):
    """A record cannot be deleted while others use it."""

    key = "in_use"
    message = "{kind} {name} is used by {users}"
    remedy = "Delete or change those first."


class RevisionConflict(ConflictError):
    """Somebody else changed the record since the caller read it."""

    key = "revision_conflict"
    message = "{kind} {name} is at revision {found}, not {expected}: somebody changed it since you read it"
    remedy = "Read it again and repeat the change."


class PreconditionFailed(ConflictError):
    """The record is no longer what the caller's If-Match says."""

    key = "precondition_failed"
    message = "{kind} {name} has the ETag {found} now, not {expected}: somebody changed it since you read it"
    remedy = "Read it again and repeat the change with the new ETag in If-Match."


class DatabaseUnavailable(UnavailableError):
    """The database cannot answer now: full disk, lock, or server away."""

    key = "database_unavailable"
    message = "The workspace's database cannot be used now: {problem}"
    remedy = "Check disk space and, for PostgreSQL, that the server is up; then try again."


class WorkspaceTooNew(UserError):
    """The folder was written by a newer Hedgerow."""

    key = "workspace_too_new"
    message = "Workspace {folder} was made by a newer Hedgerow (format {found}, this one knows {supported})"
    remedy = "Upgrade this Hedgerow (pip install --upgrade hedgerow), or use another folder."


class NotAWorkspace(UserError):
    """A folder that holds something else."""

    key = "not_a_workspace"
    message = "{folder} holds files but no Hedgerow workspace"
    remedy = "Choose an empty folder, or one that `hedgerow up` made."


class RoleTaken(ConflictError):
    """A second process wants a role that one process holds."""

    key = "role_taken"
    message = "The {role} of workspace {folder} is already running as process {pid}"
    remedy = "Use that one, or stop it first (kill {pid})."


class PortTaken(ConflictError):
    """The port to listen on belongs to somebody else."""

    key = "port_taken"
    message = "Port {port} on {host} is taken by another program"
    remedy = "Choose another with {option} (0 picks a free one)."


class LeaseLost(ConflictError):
    """Another holder took the lease; whatever this one still does must not be written."""

    key = "lease_lost"
    message = "The lease {name} belongs to {holder} now"
    remedy = "Nothing needs doing: this process stops its work, the other one goes on."


class TokenMissing(AccessError):
    """No credential came with the request."""

    key = "token_missing"
    message = "This needs a token"
    remedy = "Send `Authorization: Bearer TOKEN`; make one with: hedgerow token create"


class TokenRefused(AccessError):
    """The credential is unknown, expired or revoked."""

    key = "token_refused"
    message = "The token was refused: {problem}"
    remedy = "Make a new one with: hedgerow token create"


class RoleForbids(ForbiddenError):
    """The credential is good but its role may not do this."""

    key = "role_forbids"
    message = "A {role} token may not {action}"
    remedy = "Use a token with the role {needed}."


class ScopeForbids(ForbiddenError):
    """The credential's role would do, but its scopes do not cover this."""

    key = "scope_forbids"
    message = "This token reaches {scopes} only, not {wanted}"
    remedy = "Use a token without scopes, or one whose scopes name it (hedgerow token create NAME --scope NOUN:NAME)."


class OriginRefused(ForbiddenError):
    """A browser page of another site sent this request."""

    key = "origin_refused"
    message = "Requests for host {host} from origin {origin} are not taken"
    remedy = "Use the address that `hedgerow up` printed; behind a proxy start it with --behind-proxy."


class ForeignDatabase(ConflictError):
    """A database that belongs to another workspace."""

    key = "foreign_database"
    message = "The database belongs to workspace {found}, not to {expected}"
    remedy = "Give every workspace a database of its own (--database URL)."


class PlaintextRefused(UserError):
    """Listening beyond this machine without encryption."""

    key = "plaintext_refused"
    message = "Listening on {host} would send tokens over the network unencrypted"
    remedy = "Put a proxy with TLS in front and start with --behind-proxy, or listen on 127.0.0.1."


class FilesCollide(UserError):
    """Two files of one folder want the same place."""

    key = "files_collide"
    message = "The path {path} is given twice, or as a file and as a folder"
    remedy = "Give every file a path of its own."


class InvalidPage(UserError):
    """A cursor that no list of this server gave out."""

    key = "invalid_page"
    message = "{value!r} is not the end of a page"
    remedy = "Pass the `next` of the page before as `after`, unchanged."


class InvalidFilter(UserError):
    """A tag to search for that has no key."""

    key = "invalid_filter"
    message = "{value!r} is no tag to search for"
    remedy = "Write KEY=VALUE, or KEY for any value."


class DatabaseOccupied(ConflictError):
    """A database in which another program keeps tables under the same names."""

    key = "database_occupied"
    message = "The database holds tables of another program ({tables})"
    remedy = "Give the workspace a database of its own (--database URL)."


class BuildRefused(UserError):
    """A build whose parts do not fit together."""

    key = "build_refused"
    message = "The image {name} cannot be built: {problem}"
    remedy = "Correct the request and send it again."


class RoleNotForTokens(UserError):
    """Roles whose tokens are made together with what they are bound to."""

    key = "role_not_for_tokens"
    message = "A token with the role {role} cannot be made by itself"
    remedy = "Enrol a device or submit a run: they come with their tokens. Use owner, contributor, reader or puller here."


class DeploymentRefused(UserError):
    """A deployment that cannot be run as asked."""

    key = "deployment_refused"
    message = "{endpoint}/{name} cannot be deployed: {problem}"
    remedy = "{advice}"


class TrafficRefused(UserError):
    """A traffic split that does not fit the endpoint."""

    key = "traffic_refused"
    message = "The traffic of {endpoint} cannot be split like that: {problem}"
    remedy = "Give whole percentages that sum to 100, for deployments of this endpoint."


class StillServing(ConflictError):
    """A deployment that requests are routed to cannot be taken away."""

    key = "still_serving"
    message = "Deployment {name} gets {percent} % of the traffic of {endpoint}"
    remedy = "Give its share to another deployment first: hedgerow service traffic {endpoint} OTHER=100"


class RunRefused(UserError):
    """A run that cannot be started as asked."""

    key = "run_refused"
    message = "The run cannot be submitted: {problem}"
    remedy = "Correct the request and send it again."


class InvalidLineageId(UserError):
    """A text that cannot name anything in the graph of what was made from what."""

    key = "invalid_lineage_id"
    message = "{value!r} names nothing that lineage knows"
    remedy = "Write KIND:NAME, for example model:iris:3, data:sha256:…, commit:4f1c2a9, module:DEVICE/MODULE; kinds: {kinds}."


class AmbiguousCommit(UserError):
    """The beginning of a commit's id that several recorded commits share."""

    key = "ambiguous_commit"
    message = "Several recorded commits begin with {prefix}, for example {first} and {last}"
    remedy = "Give more of its characters."


class RunEnded(ConflictError):
    """Nothing can be logged to a run that is over."""

    key = "run_ended"
    message = "Run {run} has ended ({state})"
    remedy = "Log while the script runs; submit a new run otherwise."


class VaultKeyMissing(UnavailableError):
    """A sealed value whose key is not on the workspace's ring."""

    key = "vault_key_missing"
    message = "{name} was sealed under the key {key}, which {path} does not hold"
    remedy = "Put vault.keys back from your copy of the workspace's keys folder, or set the value again."


class VaultValueDamaged(UnavailableError):
    """A sealed value that its own key does not open."""

    key = "vault_value_damaged"
    message = "{name} cannot be unsealed: its sealed value was changed, or belongs to another record"
    remedy = "Restore the database from a backup, or set the value again."


class VaultRingUnreadable(UnavailableError):
    """The file with the vault's keys cannot be used."""

    key = "vault_ring_unreadable"
    message = "The vault's keys in {path} cannot be used: {problem}"
    remedy = "Put the file back from your copy of the workspace's keys folder."


class EnvironmentRefused(UserError):
    """A conda file, requirements or variables that no environment can be made of."""

    key = "environment_refused"
    message = "{where} cannot be used: {problem}"
    remedy = "{advice}"


class MlmodelInvalid(UserError):
    """A model folder has an MLmodel file at its top that is none."""

    key = "mlmodel_invalid"
    message = "The file MLmodel cannot be read as MLflow's: {problem}"
    remedy = "Save the model with MLflow again, or register its files without the one called MLmodel."


class RegistryLoginMissing(UserError):
    """User and password for a registry are not whole."""

    key = "registry_login_missing"
    message = "It is not clear who pushes: {problem}"
    remedy = "Give a user and a password, or the name of a secret that holds USER:PASSWORD (hedgerow secret set NAME)."


class CursorOfAnotherLife(ConflictError):
    """A place in the events that a backup, restored since, does not know."""

    key = "events_restored"
    message = "The cursor {cursor!r} is of incarnation {found}; the workspace was restored from a backup and is {expected} now"
    remedy = "Read the events from the beginning (without `after`): some that you have seen may be gone, others are new."


class WebhookPaused(ConflictError):
    """A webhook that is paused gets nothing."""

    key = "webhook_paused"
    message = "The webhook {name} is paused"
    remedy = "Resume it first: hedgerow webhook resume {name}"


class TooManyWebhooks(ConflictError):
    """Each webhook costs a thread while it is sent to."""

    key = "too_many_webhooks"
    message = "There are {limit} webhooks already"
    remedy = "Delete one that is not needed (hedgerow webhook delete NAME), or let one receiver pass the events on."


class RecordDeleted(RecordNotFound):
    """A record that was deleted although others point at it; only lineage still shows it."""

    key = "record_deleted"
    message = "The {kind} {name} was deleted by {by} at {when}"
    remedy = "See what there is with: hedgerow {command} list"


class RegistrationRefused(UserError):
    """A registration whose parts do not fit together."""

    key = "registration_refused"
    message = "{name} cannot be registered: {problem}"
    remedy = "Correct the request and send it again."


class TooManyLabels(UserError):
    """More tags or properties than anybody could read."""

    key = "too_many_labels"
    message = "{name} would have {count} {kind}"
    remedy = "Keep to {most}; put what is larger into a file of the model."


class PropertyFixed(ConflictError):
    """Properties are written once."""

    key = "property_fixed"
    message = "The property {property} of {name} is {found!r} and stays so"
    remedy = "Use a tag for what changes, or register another version."


class AliasReserved(UserError):
    """An alias whose meaning is fixed."""

    key = "alias_reserved"
    message = "The alias {alias} cannot be set or removed: latest always means the newest version, a number that version"
    remedy = "Choose another alias."


class AliasProtected(ForbiddenError):
    """A protected alias, which owners alone move, unprotect or remove."""

    key = "alias_protected"
    message = "The alias {name}@{alias} (version {version}) is protected; a {role} token may not change it"
    remedy = "Ask an owner, or use a token with the role owner."


class PackTooLarge(UserError):
    """A model that no OCI client would take as an artifact."""

    key = "pack_too_large"
    message = "Model {name} has {count} files: its OCI manifest would be larger than the {limit_mib} MiB that clients read"
    remedy = "Fetch it with: hedgerow model download {name}"
