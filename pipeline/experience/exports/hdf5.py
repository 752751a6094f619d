"""Opens HDF5 files, for which the package h5py has to be installed."""

from pathlib import Path
from typing import Any

from pipeline.experience.exports.errors import ExportPackageMissing


def require_h5py(library: str) -> None:
    """Raise ExportPackageMissing unless h5py is installed."""
    try:
        import h5py  # noqa: F401
    except ImportError as error:
        raise ExportPackageMissing(library, "h5py") from error


def create(file: Path) -> Any:
    """Return a new HDF5 file, open for writing: a context manager. Its groups keep their order."""
    import h5py

    return h5py.File(file, "w", track_order=True)
