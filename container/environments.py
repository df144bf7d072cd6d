"""What each process that we start may see of our environment.

Rule: a child sees what it needs. The JVM and the examiner, which open strangers' bytes, have no credentials; nobody else's
settings reach the demo's endpoint.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

# Of the environment, MMS takes settings of its own (ConfigManager.java, and our scratch must win), and Java takes options.
_CREDENTIALS = r".*(SECRET|TOKEN|PASSWORD|CREDENTIAL).*|AWS_.*"
_NOT_FOR_MMS = re.compile(rf"MMS_.*|MODEL_SERVER_HOME|LOG_LOCATION|METRICS_LOCATION|PYTHONPATH|TEMP|{_CREDENTIALS}")
_NOT_FOR_EXAMINER = re.compile(_CREDENTIALS)


def mms_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the JVM: without what would configure MMS behind our back, and without credentials."""
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items() if not _NOT_FOR_MMS.fullmatch(name)}


# Settings that hosted mode refuses; tests/container/test_environments.py holds this against settings.py.
_STANDALONE_ONLY = re.compile(
    r"MME_(FALLBACK|DISK_DIR|DISK|PRELOAD|PIN|MIN_RESIDENCE_S|WAIT_S|WARM|WARM_MODELS|WARM_INTERVAL_S|WORKERS)"
)
_OF_MODELS = re.compile(r"MME_(S3_ENDPOINT_URL|MAX_AGE_S)")  # refused where there is no MME_MODELS


def container_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment that the platform gives a multi-model container: what is meant for a standalone one is not for it."""
    environ = os.environ if environ is None else environ
    kept = {name: value for name, value in environ.items() if not _STANDALONE_ONLY.fullmatch(name)}
    if not kept.get("MME_MODELS"):
        kept = {name: value for name, value in kept.items() if not _OF_MODELS.fullmatch(name)}
    return {**kept, "SAGEMAKER_MULTI_MODEL": "true"}


def keep_ray_quiet() -> None:
    """Of a Ray that this process starts: it does not tell its makers that it was."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def let_arrow_use_malloc() -> None:
    """Before pyarrow is imported. Its own allocator gives pages back after each window of rows, and the kernel clears them
    anew for the next: 0.4 of 3 CPU s in a run over ten million rows, and a tenth more memory; of training, a fifth more."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def keep_blas_alone() -> None:
    """Before NumPy is imported. OpenBLAS starts a thread for each core then, which spins for a while before it sleeps: 0.1 s
    of a core, for products of matrices that nobody asks for."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


# What would make a replica of a fleet something else than a standalone endpoint; where it listens its flags say.
_NOT_FOR_REPLICA = re.compile(r"MME_HOSTED|SAGEMAKER_MULTI_MODEL")


def replica_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of one endpoint of a fleet: all of ours."""
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items() if not _NOT_FOR_REPLICA.fullmatch(name)}


def runtime_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the runtime. Idle BLAS and OpenMP threads are memory, and its malloc must give memory back."""
    environ = os.environ if environ is None else environ
    return {
        **environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # One heap: what an evicted model leaves is then one trim away, and the next model fits into it.
        "MALLOC_ARENA_MAX": "1",
        # Hosted, a thread for each model: of those that ended, libc keeps 40 MiB of stacks unless told.
        "GLIBC_TUNABLES": "glibc.pthread.stack_cache_size=1048576",
        "PYTHONUNBUFFERED": "1",
    }


def examiner_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the examiner: the runtime's without credentials, and a malloc without per-thread caches, which
    count freed blocks as used (`mallinfo2`) and so hide up to 200 KB of what a load takes."""
    kept = {
        name: value for name, value in runtime_environment(environ).items() if not _NOT_FOR_EXAMINER.fullmatch(name)
    }
    return {**kept, "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}


# What is meant for another endpoint, or for the real S3. Kept: where Java is and where temporary files may go.
_NOT_FOR_DEMO = re.compile(r"(?!MME_(JAVA_HOME|SCRATCH)$)MME_.*|SAGEMAKER_.*|AWS_.*")
# Any credentials do for the demo's own S3, and it listens in no region. Its endpoint shall find no others.
DEMO_REGION = "us-east-1"
DEMO_KEY = "demo"


def demo_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the demo's endpoint: nobody else's settings, no real credentials, and no proxy to its own S3."""
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items() if not _NOT_FOR_DEMO.fullmatch(name)} | {
        "AWS_ACCESS_KEY_ID": DEMO_KEY,
        "AWS_SECRET_ACCESS_KEY": DEMO_KEY,
        "AWS_DEFAULT_REGION": DEMO_REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def opt_ml(environ: Mapping[str, str] | None = None) -> Path:
    """Where SageMaker puts a job's files. MME_OPT_ML: elsewhere, for a job on a machine that has no /opt/ml for it."""
    environ = os.environ if environ is None else environ
    return Path(environ.get("MME_OPT_ML") or "/opt/ml")


# The platform's containers call back to it with these; it checks none.
PLATFORM_KEY = "platform"


def played_environment(
    given: Mapping[str, str], *, address: str, region: str, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a container or job of the platform's: the image's own, which here is this machine's without what
    is meant for others, then what SageMaker gives, with the AWS at `address`; `given` last."""
    environ = os.environ if environ is None else environ
    return {
        **demo_environment(environ),
        "AWS_ACCESS_KEY_ID": PLATFORM_KEY,
        "AWS_SECRET_ACCESS_KEY": PLATFORM_KEY,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ENDPOINT_URL": address,
        **given,
    }


def engine_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a container engine's client: all of ours, where it finds its settings. Containers see none of it."""
    environ = os.environ if environ is None else environ
    return dict(environ)


def let_openmp_sleep() -> None:
    """Of this process, before libgomp is loaded: where cores are shared, threads that spin for one another cost many times
    what they do. What the user has set stays."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def java_home(environ: Mapping[str, str] | None = None) -> Path | None:
    """MME_JAVA_HOME: a Java runtime to use instead of the installed wheel's."""
    environ = os.environ if environ is None else environ
    return Path(environ["MME_JAVA_HOME"]) if environ.get("MME_JAVA_HOME") else None
