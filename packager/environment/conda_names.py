"""What conda's names mean on a package index: other names, shared libraries that wheels bring along, and what only conda has.

Tables alone; `conda_packages.py` reads them. A name that stands in none of them is taken to be the same on the index.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# conda name -> name on the package index (an extra where conda's package brings more).
RENAMED = {
    "bokeh-core": "bokeh",
    "brotli-python": "brotli",
    "dask": "dask[complete]",
    "dask-core": "dask",
    "docker-py": "docker",
    "faiss": "faiss-cpu",
    "keras-gpu": "keras",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "numpy-base": "numpy",
    "opencv": "opencv-python-headless",
    "psycopg2": "psycopg2-binary",  # the other is there as source only
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "py-xgboost-gpu": "xgboost",
    "pyarrow-core": "pyarrow",
    "pyqt": "pyqt5",
    "pytables": "tables",
    "python-annoy": "annoy",
    "python-blosc": "blosc",
    "python-confluent-kafka": "confluent-kafka",
    "python-duckdb": "duckdb",
    "python-flatbuffers": "flatbuffers",
    "python-graphviz": "graphviz",
    "python-igraph": "igraph",
    "python-kaleido": "kaleido",
    "python-lmdb": "lmdb",
    "python-tzdata": "tzdata",
    "python-xxhash": "xxhash",
    "python-zstd": "zstd",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "redis-py": "redis",
    "seaborn-base": "seaborn",
    "tensorflow-base": "tensorflow",
    "tensorflow-eigen": "tensorflow",
    "tensorflow-gpu": "tensorflow",
    "tensorflow-mkl": "tensorflow",
    "torchaudio-cpu": "torchaudio",
    "torchvision-cpu": "torchvision",
    "torchvision-gpu": "torchvision",
    "xgboost-gpu": "xgboost",
}

# Their versions on the index have one number more (opencv 4.8.1 there is 4.8.1.78), so an exact version means a prefix.
LONGER_VERSIONS = frozenset({"opencv-python-headless"})

# Part of the standard library of every Python that images can have; the packages were for older ones.
IN_STANDARD_LIBRARY = frozenset(
    {"argparse", "asyncio", "contextvars", "dataclasses", "enum34", "futures", "importlib", "pathlib", "pathlib2", "typing"}
)

# Conda's own machinery, and Python itself, which comes from the base image.
MACHINERY = frozenset(
    {"anaconda", "conda", "conda-build", "conda-env", "mamba", "micromamba", "nomkl", "pip", "python", "python-abi", "wheel"}
)

# Shared libraries, their choosers, data and compilers: wheels bring what they need, and need nothing compiled.
_LIBRARIES = _words("""
    abseil-cpp alsa-lib arrow-cpp atk binutils blas blosc boost boost-cpp brotli brotli-bin bzip2 c-ares c-blosc2
    c-compiler ca-certificates cairo cfitsio charls compilers cuda cudatoolkit cudnn cxx-compiler dav1d dbus eigen expat
    fftw fontconfig fonts-anaconda fonts-conda-ecosystem fonts-conda-forge fortran-compiler freetype freexl fribidi gcc
    gdk-pixbuf geos geotiff gettext gflags gfortran giflib glib glib-tools glog gmp gnutls gobject-introspection
    graphite2 gst-plugins-base gstreamer gxx harfbuzz hdf4 hdf5 icu intel-openmp jasper jpeg json-c jxrlib kealib
    keyutils krb5 lame lcms2 leptonica lerc lld llvm llvm-openmp llvmdev lz4-c lzo magma metis mkl mkl-dnn mkl-fft
    mkl-include mkl-random mkl-service mpc mpfr mpi mpich mumps-seq mysql-common mysql-libs nccl ncurses nettle nspr nss
    numactl onednn openblas openblas-devel openh264 openjpeg openmpi openssl orc p11-kit pango pcre pcre2 pixman
    poppler-data proj pthread-stubs pytorch-cuda pytorch-mutex qhull qt qt-main qt6-main rdma-core re2 readline s2n
    snappy sqlite suitesparse svt-av1 tbb tbb-devel tbb4py tiledb tk tzcode tzdata ucx unixodbc utf8proc x264 x265
    xerces-c xxhash xz yaml yaml-cpp zeromq zfp zlib zstd
""")
_LIBRARY = re.compile(
    r"-.*|lib.*|.*-mutex|(?:gcc|gxx|gfortran|binutils|ld-impl|kernel-headers|sysroot)-.*"
    r"|(?:cuda|cudnn|nccl|cutensor|aws-c|xorg)-.*|(?:aws-sdk|azure-.*|grpc|protobuf|nlohmann.*)-cpp"
)
# Python packages whose names only look like shared libraries, and libraries that people call by name.
_NOT_LIBRARIES = _words("""
    cuda-bindings cuda-core cuda-python libarchive-c libclang libconf libcst libgdal libmagic libnacl libpysal librosa
    librt libsass libsvm libsvm-official libtmux libtorrent libusb1 libvips libvirt-python
""")

# Programs, and libraries that no wheel brings along -> the Debian packages that have them; "" where Debian has none.
ONLY_CONDA = {
    "aria2": "aria2",
    "blast": "ncbi-blast+",
    "bwa": "bwa",
    "chromedriver": "",
    "cmake": "cmake",
    "curl": "curl",
    "exiftool": "libimage-exiftool-perl",
    "ffmpeg": "ffmpeg",
    "firefox": "",
    "gcloud": "",
    "gdal": "gdal-bin",
    "geckodriver": "",
    "ghostscript": "ghostscript",
    "git": "git",
    "git-lfs": "git-lfs",
    "go": "golang-go",
    "google-cloud-sdk": "",
    "graphviz": "graphviz",
    "imagemagick": "imagemagick",
    "julia": "",
    "jq": "jq",
    "libgdal": "gdal-bin",
    "libmagic": "libmagic1",
    "libvips": "libvips42",
    "make": "make",
    "maven": "maven",
    "nodejs": "nodejs",
    "openjdk": "default-jre-headless",
    "pandoc": "pandoc",
    "perl": "perl",
    "poppler": "poppler-utils",
    "postgresql": "postgresql",
    "prodigal": "prodigal",
    "redis": "redis-server",
    "redis-server": "redis-server",
    "rsync": "rsync",
    "ruby": "ruby",
    "rust": "rustc",
    "samtools": "samtools",
    "sox": "sox",
    "tesseract": "tesseract-ocr",
    "texlive-core": "texlive-base",
    "unzip": "unzip",
    "wget": "wget",
    "wkhtmltopdf": "wkhtmltopdf",
    "zip": "zip",
}
_OTHER_LANGUAGES = re.compile(r"(?:r|bioconductor|perl|spacy-model|texlive|m2)-.*|r|rstudio")


def is_library(name: str) -> bool:
    """Whether ``name`` is a shared library, a compiler or conda's chooser of one: nothing that a script imports."""
    return name not in _NOT_LIBRARIES and name not in ONLY_CONDA and (name in _LIBRARIES or _LIBRARY.fullmatch(name) is not None)


def is_only_conda(name: str) -> bool:
    """Whether ``name`` is a program, a package of R and the like, or a model: nothing that an index of Python packages has."""
    return name in ONLY_CONDA or _OTHER_LANGUAGES.fullmatch(name) is not None
