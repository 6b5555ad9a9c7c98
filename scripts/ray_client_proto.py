"""The messages of the Ray Client protocol, as the installed Ray has them.

print: their .proto text. compare IMAGE: whether a compiled image of that text says the same as Ray's descriptor.
"""
import sys

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

import ray
import ray.core.generated.ray_client_pb2 as ray_client_pb2

SCALARS = {value: name[5:].lower() for name, value in FieldDescriptorProto.Type.items()}
file = FileDescriptorProto()
ray_client_pb2.DESCRIPTOR.CopyToProto(file)


def type_of(field):
    return field.type_name.removeprefix(f".{file.package}.") if field.type_name else SCALARS[field.type]


def field_lines(field, maps, indent):
    entry = maps.get(field.type_name.split(".")[-1])
    if entry:
        key, value = entry.field
        return [f"{indent}map<{type_of(key)}, {type_of(value)}> {field.name} = {field.number};"]
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    label = "repeated " if repeated else "optional " if field.proto3_optional else ""
    return [f"{indent}{label}{type_of(field)} {field.name} = {field.number};"]


def enum_lines(enum, indent):
    values = [f"{indent}  {value.name} = {value.number};" for value in enum.value]
    return [f"{indent}enum {enum.name} {{", *values, f"{indent}}}"]


def reserved_lines(message, indent):
    ranges = [f"{r.start}" if r.end == r.start + 1 else f"{r.start} to {r.end - 1}" for r in message.reserved_range]
    lines = [f"{indent}reserved {', '.join(ranges)};"] if ranges else []
    names = ", ".join(f'"{name}"' for name in message.reserved_name)
    return [*lines, f"{indent}reserved {names};"] if names else lines


def message_lines(message, indent=""):
    inner = indent + "  "
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    lines = [f"{indent}message {message.name} {{", *reserved_lines(message, inner)]
    for enum in message.enum_type:
        lines += enum_lines(enum, inner)
    for nested in message.nested_type:
        if nested.name not in maps:
            lines += message_lines(nested, inner)
    opened = None
    for field in message.field:
        oneof = field.oneof_index if field.HasField("oneof_index") and not field.proto3_optional else None
        if opened is not None and oneof != opened:
            lines.append(f"{inner}}}")
        if oneof is not None and oneof != opened:
            lines.append(f"{inner}oneof {message.oneof_decl[oneof].name} {{")
        opened = oneof
        lines += field_lines(field, maps, inner + ("  " if oneof is not None else ""))
    return [*lines, *([f"{inner}}}"] if opened is not None else []), f"{indent}}}"]


def service_lines(service):
    def side(name, stream):
        return f"({'stream ' if stream else ''}{name.split('.')[-1]})"

    calls = [
        f"  rpc {m.name}{side(m.input_type, m.client_streaming)} returns {side(m.output_type, m.server_streaming)};"
        for m in service.method
    ]
    return [f"service {service.name} {{", *calls, "}"]


def print_proto():
    lines = [f"// From Ray {ray.__version__}.", f'syntax = "{file.syntax}";', f"package {file.package};", ""]
    for enum in file.enum_type:
        lines += [*enum_lines(enum, ""), ""]
    for message in file.message_type:
        lines += [*message_lines(message), ""]
    for service in file.service:
        lines += [*service_lines(service), ""]
    print("\n".join(lines[:-1]))


def bare(described):
    """Without what a compiler adds or leaves out: JSON names, the file's own name and options."""
    copy = FileDescriptorProto()
    copy.CopyFrom(described)
    copy.ClearField("options")
    copy.ClearField("name")
    copy.ClearField("source_code_info")

    def clean(messages):
        for message in messages:
            for field in message.field:
                field.ClearField("json_name")
            clean(message.nested_type)

    clean(copy.message_type)
    for service in copy.service:
        for method in service.method:
            method.ClearField("options")
    copy.DiscardUnknownFields()
    return copy


if sys.argv[1] == "print":
    print_proto()
else:
    image = FileDescriptorSet.FromString(open(sys.argv[2], "rb").read())
    if bare(image.file[0]) != bare(file):
        sys.exit("the .proto that was written does not describe the messages that Ray has")
