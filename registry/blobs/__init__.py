"""Content by digest: the port (``port.py``), its adapters (a local folder, any fsspec store), hashing and verified ranges."""

from __future__ import annotations

from registry.blobs.folder import FolderStore
from registry.blobs.hashing import CHUNK_BYTES, READ_BYTES, ChunkHashes
from registry.blobs.port import BlobStore, Readable, Staged, StoredBlob

__all__ = ["CHUNK_BYTES", "READ_BYTES", "BlobStore", "ChunkHashes", "FolderStore", "Readable", "Staged", "StoredBlob"]
