"""What Application Auto Scaling may ask of variants and components, and where it finds them.

Rule: a count that cannot be set now is refused with its reason; the alarm asks again.
"""

from __future__ import annotations

from container.platform.components.component import Component
from container.platform.components.components import Components
from container.platform.endpoints import sides
from container.platform.endpoints.endpoints import Endpoints
from container.platform.scaling.resources import COMPONENT, Address, Resource
from container.platform.service.faults import ValidationException


class Counts:
    """find   a Finder"""

    def __init__(self, endpoints: Endpoints, components: Components) -> None:
        self._endpoints = endpoints
        self._components = components

    def find(self, address: Address) -> Resource | None:
        if address.dimension == COMPONENT.dimension:
            component = self._components.find(*address.names)
            return _Copies(self._components, component) if component else None
        endpoint, variant = address.names
        there = self._endpoints.variant(endpoint, variant) is not None
        return _Instances(self._endpoints, endpoint, variant) if there else None


class _Instances:
    """Of a variant."""

    def __init__(self, endpoints: Endpoints, endpoint: str, variant: str) -> None:
        self._endpoints = endpoints
        self._names = endpoint, variant

    def desired(self) -> int:
        found = self._endpoints.variant(*self._names)
        return found.desired if found else 0

    def is_settled(self) -> bool:
        endpoint = self._endpoints.find(self._names[0])
        return endpoint is not None and endpoint.status == sides.IN_SERVICE

    def trouble(self) -> str | None:
        endpoint = self._endpoints.find(self._names[0])
        return endpoint.failure if endpoint and endpoint.status == sides.FAILED else None

    def set_desired(self, n: int) -> None:
        if not self._endpoints.set_desired(*self._names, n):
            raise ValidationException(f"Cannot update in-progress endpoint {self._names[0]}.")


class _Copies:
    """Of a component."""

    def __init__(self, components: Components, component: Component) -> None:
        self._components = components
        self._component = component

    def desired(self) -> int:
        return self._component.desired

    def is_settled(self) -> bool:
        return self._component.status == "InService"

    def trouble(self) -> str | None:
        one = self._component
        if one.status == "Failed" or (one.status == "InService" and one.reason):
            return one.reason
        return "it is being deleted" if one.status == "Deleting" else None

    def set_desired(self, n: int) -> None:
        self._components.set_desired(self._component.name, n)
