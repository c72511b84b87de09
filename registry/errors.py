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


class BlobMissing(UserError):
    """A record refers to a blob that was never uploaded."""

    key = "blob_missing"
    message = "The content of {path} ({digest}) was not uploaded"
    remedy = "Upload it with PUT /api/v1/blobs/DIGEST before registering."


class BlobDamaged(UnavailableError):
    """A stored blob no longer has the content that its digest promises."""

    key = "blob_damaged"
    message = "Blob {digest} is damaged on disk (its content hashes to {found})"
    remedy = "Restore the workspace's blobs from a backup, or upload the same content again."


class DigestMismatch(UserError):
    """Uploaded content does not have the digest it was announced with."""

    key = "digest_mismatch"
    message = "The uploaded content hashes to {found}, not to {expected}"
    remedy = "The file changed or was cut off on the way: upload it again."


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


class OriginRefused(ForbiddenError):
    """A browser page of another site sent this request."""

    key = "origin_refused"
    message = "Requests for host {host} from origin {origin} are not taken"
    remedy = "Use the address that `hedgerow up` printed; behind a proxy start it with --behind-proxy."


class BlobUnknown(NotFoundError):
    """No blob of this digest is stored."""

    key = "blob_unknown"
    message = "There is no blob {digest}"
    remedy = "Check the digest, or upload the content with PUT /api/v1/blobs/DIGEST."


class StorageUnavailable(UnavailableError):
    """The disk that holds the blobs is full, read-only or broken."""

    key = "storage_unavailable"
    message = "The workspace's folder cannot be written now: {problem}"
    remedy = "Free disk space (or make it writable) and try again; nothing was stored half."


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


class BlobSizeWrong(UserError):
    """A record gives another size for a blob than the blob has."""

    key = "blob_size_wrong"
    message = "{path} was announced with {announced} bytes, its stored content has {stored}"
    remedy = "The file changed while it was read: read it again and repeat."


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


class RunEnded(ConflictError):
    """Nothing can be logged to a run that is over."""

    key = "run_ended"
    message = "Run {run} has ended ({state})"
    remedy = "Log while the script runs; submit a new run otherwise."
