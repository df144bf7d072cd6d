"""What a container is given of its instance."""

from __future__ import annotations

from container import settings
from container.limits.memory import model_budget
from container.platform.endpoints.containers import for_models
from container.platform.instance_types import INSTANCE_TYPES


def test_memory_for_models_is_what_the_container_would_find_on_such_an_instance() -> None:
    front = settings.read({}, {"MME_MODELS": "s3://bucket/"}).front
    for instance_type in INSTANCE_TYPES.values():
        found = model_budget(instance_type.memory_bytes, front.jvm_heap_bytes + front.jvm_direct_bytes)
        assert for_models(instance_type.memory_bytes) == found
