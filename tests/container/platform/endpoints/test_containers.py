"""What a container is given of its instance."""

from __future__ import annotations

from container import settings
from container.limits.memory import model_budget
from container.platform.endpoints.containers import AGAIN_AFTER_MOST_S, again_after_s, for_models
from container.platform.instance_types import INSTANCE_TYPES


def test_memory_for_models_is_what_the_container_would_find_on_such_an_instance() -> None:
    front = settings.read({}, {"MME_MODELS": "s3://bucket/"}).front
    for instance_type in INSTANCE_TYPES.values():
        found = model_budget(instance_type.memory_bytes, front.jvm_heap_bytes + front.jvm_direct_bytes)
        assert for_models(instance_type.memory_bytes) == found


def test_a_container_that_dies_for_hours_is_started_again_at_the_same_pace() -> None:
    assert [again_after_s(n) for n in (1, 2, 6)] == [0.4, 0.8, AGAIN_AFTER_MOST_S]
    assert again_after_s(5000) == AGAIN_AFTER_MOST_S
