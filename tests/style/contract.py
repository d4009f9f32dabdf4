"""Reads gen/descriptors.binpb into flat lists; the style tests of the protos walk these."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from wayfare.policy.v1 import policy_pb2

PROJECT = Path(__file__).parents[2]

# Paths in SourceCodeInfo are field numbers of descriptor.proto, with an index after each.
_MESSAGES, _ENUMS, _SERVICES, _EXTENSIONS = 4, 5, 6, 7
_MESSAGE_FIELDS, _MESSAGE_MESSAGES, _MESSAGE_ENUMS = 2, 3, 4
_VALUES = _METHODS = 2

Location = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """Anything that deserves a comment: its full name, what it is, and the comment."""

    name: str
    kind: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field with its message's full name."""

    message: str
    descriptor: descriptor_pb2.FieldDescriptorProto

    @property
    def name(self) -> str:
        """Return the full name."""
        return f"{self.message}.{self.descriptor.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method with its service's full name and what its options say."""

    service: str
    descriptor: descriptor_pb2.MethodDescriptorProto

    @property
    def name(self) -> str:
        """Return the full name."""
        return f"{self.service}.{self.descriptor.name}"

    @property
    def has_policy(self) -> bool:
        """Return whether a policy is stated at all."""
        return bool(self.descriptor.options.HasExtension(policy_pb2.method))

    @property
    def policy(self) -> policy_pb2.MethodPolicy:
        """Return the policy; an empty one when none is stated."""
        return self.descriptor.options.Extensions[policy_pb2.method]

    @property
    def has_http(self) -> bool:
        """Return whether the method has a JSON binding."""
        return bool(self.descriptor.options.HasExtension(annotations_pb2.http))

    @property
    def streaming(self) -> bool:
        """Return whether either side streams."""
        return self.descriptor.client_streaming or self.descriptor.server_streaming

    @property
    def internal_only(self) -> bool:
        """Return whether only services may call."""
        access = self.policy.access
        return access.HasField("internal") and not access.public and not access.HasField("user")


@cache
def files() -> tuple[descriptor_pb2.FileDescriptorProto, ...]:
    """Return Wayfare's own files."""
    data = (PROJECT / "gen" / "descriptors.binpb").read_bytes()
    every = descriptor_pb2.FileDescriptorSet.FromString(data).file
    return tuple(file for file in every if file.package.startswith("wayfare."))


@cache
def methods() -> tuple[Method, ...]:
    """Return the methods of all services."""
    return tuple(
        Method(service=f"{file.package}.{service.name}", descriptor=method)
        for file in files()
        for service in file.service
        for method in service.method
    )


@cache
def messages() -> dict[str, descriptor_pb2.DescriptorProto]:
    """Return all messages by full name, nested ones too."""
    found: dict[str, descriptor_pb2.DescriptorProto] = {}

    def add(scope: str, message: descriptor_pb2.DescriptorProto) -> None:
        name = f"{scope}.{message.name}"
        found[name] = message
        for nested in message.nested_type:
            add(name, nested)

    for file in files():
        for message in file.message_type:
            add(file.package, message)
    return found


@cache
def fields() -> tuple[Field, ...]:
    """Return the fields of all messages, those of map entries excepted."""
    return tuple(
        Field(message=name, descriptor=field)
        for name, message in messages().items()
        if not message.options.map_entry
        for field in message.field
    )


@cache
def elements() -> tuple[Element, ...]:
    """Return everything that deserves a comment, with the comment that it has."""
    return tuple(element for file in files() for element in _elements_of(file))


def reasons() -> Iterator[tuple[str, Element]]:
    """Yield each error reason's enum package and value, the unspecified ones excepted."""
    for element in elements():
        package, _, name = element.name.rpartition(".ErrorReason.")
        if element.kind == "value" and package and name != "ERROR_REASON_UNSPECIFIED":
            yield package, element


def reason_text(element: Element) -> str:
    """Return the reason as ErrorInfo carries it."""
    return element.name.rpartition(".")[2].removeprefix("ERROR_REASON_")


def _elements_of(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Element]:
    walk = _Walk(file)
    scope = file.package
    for index, message in enumerate(file.message_type):
        yield from walk.message(scope, message, (_MESSAGES, index))
    for index, enum in enumerate(file.enum_type):
        yield from walk.enum(scope, enum, (_ENUMS, index))
    for index, extension in enumerate(file.extension):
        yield walk.element(f"{scope}.{extension.name}", "extension", (_EXTENSIONS, index))
    for index, service in enumerate(file.service):
        yield from walk.service(scope, service, (_SERVICES, index))


class _Walk:
    """Goes through one file's declarations and looks up the comment of each."""

    def __init__(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        self._comments = {
            tuple(location.path): location.leading_comments.strip()
            for location in file.source_code_info.location
        }

    def element(self, name: str, kind: str, location: Location) -> Element:
        return Element(name=name, kind=kind, comment=self._comments.get(location, ""))

    def enum(
        self, scope: str, enum: descriptor_pb2.EnumDescriptorProto, location: Location
    ) -> Iterator[Element]:
        name = f"{scope}.{enum.name}"
        yield self.element(name, "enum", location)
        for index, value in enumerate(enum.value):
            yield self.element(f"{name}.{value.name}", "value", (*location, _VALUES, index))

    def message(
        self, scope: str, message: descriptor_pb2.DescriptorProto, location: Location
    ) -> Iterator[Element]:
        if message.options.map_entry:
            return
        name = f"{scope}.{message.name}"
        yield self.element(name, "message", location)
        for index, field in enumerate(message.field):
            yield self.element(f"{name}.{field.name}", "field", (*location, _MESSAGE_FIELDS, index))
        for index, nested in enumerate(message.nested_type):
            yield from self.message(name, nested, (*location, _MESSAGE_MESSAGES, index))
        for index, enum in enumerate(message.enum_type):
            yield from self.enum(name, enum, (*location, _MESSAGE_ENUMS, index))

    def service(
        self, scope: str, service: descriptor_pb2.ServiceDescriptorProto, location: Location
    ) -> Iterator[Element]:
        name = f"{scope}.{service.name}"
        yield self.element(name, "service", location)
        for index, method in enumerate(service.method):
            yield self.element(f"{name}.{method.name}", "method", (*location, _METHODS, index))
