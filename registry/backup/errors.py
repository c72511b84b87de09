"""What can go wrong with a backup or a restore (damaged files: ``hedgerow/contracts/backup_archive.py``)."""

from __future__ import annotations

from hedgerow.errors import ConflictError, UnavailableError, UserError


class BlobsBusy(ConflictError):
    """Garbage is being collected, and a backup needs every blob to stay."""

    key = "blobs_busy"
    message = "Blobs cannot be kept for a backup now: {holder} is at work on them until {until}"
    remedy = "Try again when it is done."


class KeysChanging(UnavailableError):
    """The vault's keys were changed again and again while rows were read."""

    key = "keys_changing"
    message = "The workspace's keys changed while it was backed up"
    remedy = "Try again when the rotation of keys is done."


class TargetNotEmpty(ConflictError):
    """A restore writes into nothing only."""

    key = "restore_target_not_empty"
    message = "{where} is not empty ({found})"
    remedy = "Restore into a folder that does not exist, and into an empty database; nothing was changed."


class TargetIsMount(UserError):
    """A folder that cannot be put in place by a rename."""

    key = "restore_target_is_mount"
    message = "{folder} is a mount point, so a restored workspace cannot be put there whole"
    remedy = "Restore into a folder below it, such as {folder}/workspace."


class RestorePlaceTaken(ConflictError):
    """Where a restore builds lies something that is not ours."""

    key = "restore_place_taken"
    message = "{folder} cannot be built in: {problem}"
    remedy = "Remove it, or restore into a folder that only you can write to."


class RestoreUnderWay(ConflictError):
    """Two restores into one place."""

    key = "restore_under_way"
    message = "Another restore into {folder} is under way"
    remedy = "Wait for it to end, or stop it and start again."


class KeysNeeded(UserError):
    """A backup without keys, and nobody said where they are."""

    key = "keys_needed"
    message = "{file} holds no keys, and without them no device trusts the restored workspace and no secret can be read"
    remedy = "Give the old workspace's keys folder with --keys, or say --new-identity and enrol every device again."


class KeysUnusable(UserError):
    """Keys that cannot be those of the backup's workspace."""

    key = "keys_unusable"
    message = "The keys in {where} cannot be used: {problem}"
    remedy = "Give the keys folder of the workspace that was backed up, or a backup made with --with-keys."


class BlobsLost(UserError):
    """Content that the restored records would promise in vain."""

    key = "blobs_lost"
    message = "{file} lacks the content of {count} blobs (such as {digest}: {problem})"
    remedy = "{advice}"


class RestoreFailed(UnavailableError):
    """The disk or the database did not take what the backup holds."""

    key = "restore_failed"
    message = "The backup could not be restored: {problem}"
    remedy = "Mend that and start the restore again; nothing was left behind."
