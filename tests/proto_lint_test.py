"""The contracts follow one set of rules: names, versions, comments, and order.

A linter of our own, since buf is in no package registry that the set-up uses. What it
checks are buf's STANDARD rules (by buf's names, in brackets) and the order of AIP-191.
"""

import collections
import pathlib
import re
import tempfile

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[1] / "proto"
FILES = sorted(PROTO.glob("tandem/**/*.proto"))
# protobuf keeps well-known types apart from what we write.
WELL_KNOWN = pathlib.Path(protoc.__file__).parent / "_proto"

LOWER_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
UPPER_SNAKE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
PASCAL = re.compile(r"([A-Z][a-z0-9]*)+")
VERSION = re.compile(r"v[1-9][0-9]*((alpha|beta)[0-9]*)?")

# Field numbers of FileDescriptorProto, which the paths of source locations are made of.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE, SERVICE_METHOD, SYNTAX = 4, 5, 6, 2, 12

FIELD = descriptor_pb2.FieldDescriptorProto
UNSIGNED = (FIELD.TYPE_UINT32, FIELD.TYPE_UINT64, FIELD.TYPE_FIXED32, FIELD.TYPE_FIXED64)

# Spans of time that clients see are Duration (AIP-142); bytes are spelled out.
BAD_UNITS = ("_ms", "_us", "_millis", "_msec", "_sec", "_secs", "_mb", "_kb", "_size_in_bytes")


def parse(paths, include):
    """FileDescriptorSet of `paths` with comments; fails with what protoc says."""
    with tempfile.NamedTemporaryFile() as out:
        arguments = ["protoc", f"-I{include}", f"-I{WELL_KNOWN}", "--include_source_info",
                     f"--descriptor_set_out={out.name}", *map(str, paths)]
        assert protoc.main(arguments) == 0
        return descriptor_pb2.FileDescriptorSet.FromString(out.read()).file


def snake(name):
    """FinishReason -> FINISH_REASON."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).upper()


class Lint:
    """The offences of one file, as lines that name the place and the rule."""

    def __init__(self, file):
        self.file = file
        self.offences = []
        self.comments = {tuple(location.path): location.leading_comments.strip()
                         for location in file.source_code_info.location}
        self.lines = {tuple(location.path): location.span[0] + 1
                      for location in file.source_code_info.location}

    def expect(self, is_fine, path, message):
        if not is_fine:
            self.offences.append(f"{self.file.name}:{self.lines.get(tuple(path), 1)}: {message}")

    def run(self):
        self.check_file()
        for index, service in enumerate(self.file.service):
            self.check_service(service, (FILE_SERVICE, index))
        self.check_messages_of_rpcs()
        for index, message in enumerate(self.file.message_type):
            self.check_message(message, (FILE_MESSAGE, index))
        for index, enum in enumerate(self.file.enum_type):
            self.check_enum(enum, (FILE_ENUM, index))
        self.check_order()
        return self.offences

    def check_file(self):
        path = pathlib.PurePosixPath(self.file.name)
        package = self.file.package
        self.expect(package == ".".join(path.parts[:-1]), (),
                    f"package {package} in {path.parent} [PACKAGE_DIRECTORY_MATCH]")
        self.expect(VERSION.fullmatch(package.split(".")[-1]), (),
                    f"package {package} ends without a version [PACKAGE_VERSION_SUFFIX]")
        self.expect(LOWER_SNAKE.fullmatch(path.stem), (),
                    f"file name {path.name} [FILE_LOWER_SNAKE_CASE]")
        self.expect(self.file.syntax == "proto3", (), "not proto3")
        self.expect(not self.file.public_dependency, (), "import public [IMPORT_NO_PUBLIC]")
        for dependency in self.file.dependency:
            self.expect(dependency.startswith("google/protobuf/"), (),
                        f"imports {dependency}: each service owns its package (AIP-215)")
        header = self.file.source_code_info.location
        self.expect(any(tuple(location.path) == (SYNTAX,) and location.leading_comments
                        for location in header), (), "the file does not say what it is for")

    def check_service(self, service, path):
        self.expect(PASCAL.fullmatch(service.name) and service.name.endswith("Service"), path,
                    f"service {service.name} [SERVICE_PASCAL_CASE, SERVICE_SUFFIX]")
        self.expect(self.comments.get(path), path,
                    f"{service.name} has no comment [COMMENT_SERVICE]")
        for index, method in enumerate(service.method):
            here = path + (SERVICE_METHOD, index)
            self.expect(PASCAL.fullmatch(method.name), here,
                        f"rpc {method.name} [RPC_PASCAL_CASE]")
            self.expect(self.comments.get(here), here,
                        f"{method.name} has no comment [COMMENT_RPC]")
            for kind, type_name in (("Request", method.input_type),
                                    ("Response", method.output_type)):
                wanted = f".{self.file.package}.{method.name}{kind}"
                self.expect(type_name == wanted, here,
                            f"{method.name} has {type_name}, not {wanted} "
                            f"[RPC_{kind.upper()}_STANDARD_NAME]")

    def check_messages_of_rpcs(self):
        uses = collections.Counter(
            type_name for service in self.file.service for method in service.method
            for type_name in (method.input_type, method.output_type))
        for type_name, count in uses.items():
            self.expect(count == 1, (), f"{type_name} is of {count} rpcs "
                                        "[RPC_REQUEST_RESPONSE_UNIQUE]")

    def check_message(self, message, path):
        self.expect(PASCAL.fullmatch(message.name), path,
                    f"message {message.name} [MESSAGE_PASCAL_CASE]")
        for index, field in enumerate(message.field):
            self.check_field(message, field, path + (2, index))
        for index, oneof in enumerate(message.oneof_decl):
            self.expect(LOWER_SNAKE.fullmatch(oneof.name.removeprefix("_")), path + (8, index),
                        f"oneof {oneof.name} [ONEOF_LOWER_SNAKE_CASE]")
        for index, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                self.check_message(nested, path + (3, index))
        for index, enum in enumerate(message.enum_type):
            self.check_enum(enum, path + (4, index))

    def check_field(self, message, field, path):
        name = f"{message.name}.{field.name}"
        self.expect(LOWER_SNAKE.fullmatch(field.name), path, f"{name} [FIELD_LOWER_SNAKE_CASE]")
        self.expect(not field.name.endswith(BAD_UNITS), path, f"{name}: unit or abbreviation")
        self.expect(not field.name.startswith("num_"), path, f"{name}: counts end in _count")
        if field.name.endswith(("_count", "_bytes", "_tokens")):
            self.expect(field.type not in UNSIGNED, path, f"{name} is unsigned (AIP-141)")
        if field.name.endswith("_ns"):
            self.expect(not self.file.package.startswith("tandem.gateway."), path,
                        f"{name}: clients get a Duration (AIP-142)")
        if field.type == field.TYPE_MESSAGE:
            self.expect(field.type_name != ".google.protobuf.Empty", path, f"{name} is an Empty")
        self.expect(field.type != field.TYPE_GROUP, path, f"{name} is a group")

    def check_enum(self, enum, path):
        prefix = snake(enum.name)
        self.expect(PASCAL.fullmatch(enum.name), path, f"enum {enum.name} [ENUM_PASCAL_CASE]")
        self.expect(not enum.options.allow_alias, path, f"{enum.name} [ENUM_NO_ALLOW_ALIAS]")
        first = enum.value[0]
        self.expect(first.number == 0 and first.name == f"{prefix}_UNSPECIFIED", path,
                    f"{enum.name} starts with {first.name} = {first.number}, not "
                    f"{prefix}_UNSPECIFIED = 0 [ENUM_ZERO_VALUE_SUFFIX]")
        for index, value in enumerate(enum.value):
            self.expect(UPPER_SNAKE.fullmatch(value.name) and value.name.startswith(prefix + "_"),
                        path + (2, index),
                        f"{value.name} [ENUM_VALUE_UPPER_SNAKE_CASE, ENUM_VALUE_PREFIX]")

    def check_order(self):
        """Services, then messages, then enums; requests and responses in method order first."""
        starts = [[self.lines[(kind, index)] for index in range(count)]
                  for kind, count in ((FILE_SERVICE, len(self.file.service)),
                                      (FILE_MESSAGE, len(self.file.message_type)),
                                      (FILE_ENUM, len(self.file.enum_type)))]
        flat = [line for group in starts for line in group]
        self.expect(flat == sorted(flat), (), "not services, then messages, then enums (AIP-191)")
        wanted = [type_name.split(".")[-1] for service in self.file.service
                  for method in service.method
                  for type_name in (method.input_type, method.output_type)]
        have = [message.name for message in self.file.message_type if message.name in wanted]
        self.expect(have == wanted, (), f"requests and responses come as {have} (AIP-191)")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_contract_follows_the_rules(path):
    (file,) = parse([path], PROTO)
    assert not Lint(file).run()


def test_every_service_has_a_contract():
    assert {path.parent.relative_to(PROTO).as_posix() for path in FILES} == {
        "tandem/draft/v1", "tandem/gateway/v1", "tandem/target/v1"}


GOOD = """
// A file that breaks no rule.
syntax = "proto3";
package tandem.box.v1;
// Opens boxes.
service BoxService {
  // Opens one.
  rpc Open(OpenRequest) returns (OpenResponse);
}
message OpenRequest { string box_id = 1; }
message OpenResponse { int32 token_count = 1; Colour colour = 2; }
enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; }
"""


@pytest.mark.parametrize("good,bad,rule", [
    ("package tandem.box.v1", "package tandem.crate.v1", "PACKAGE_DIRECTORY_MATCH"),
    ("// A file that breaks no rule.", "", "what it is for"),
    ("// Opens boxes.", "", "COMMENT_SERVICE"),
    ("// Opens one.", "", "COMMENT_RPC"),
    ("BoxService", "Boxes", "SERVICE_SUFFIX"),
    ("returns (OpenResponse)", "returns (OpenRequest)", "RPC_REQUEST_RESPONSE_UNIQUE"),
    ("rpc Open(", "rpc Shut(", "RPC_REQUEST_STANDARD_NAME"),
    ("string box_id", "string boxId", "FIELD_LOWER_SNAKE_CASE"),
    ("string box_id", "int64 wait_ms", "unit"),
    ("string box_id", "int64 wait_ns", "Duration"),
    ("int32 token_count", "uint32 token_count", "is unsigned"),
    ("int32 token_count", "int32 num_tokens", "_count"),
    ("COLOUR_UNSPECIFIED", "COLOUR_NONE", "ENUM_ZERO_VALUE_SUFFIX"),
    ("COLOUR_RED", "RED", "ENUM_VALUE_PREFIX"),
    ("message OpenRequest { string box_id = 1; }", "", "AIP-191"),
])
def test_a_broken_rule_is_found(tmp_path, good, bad, rule):
    folder = tmp_path / "tandem" / "box" / "v1"
    folder.mkdir(parents=True)
    path = folder / "box.proto"
    path.write_text(GOOD, encoding="utf-8")
    (file,) = parse([path], tmp_path)
    assert not Lint(file).run()

    text = GOOD.replace(good, bad)
    if rule == "AIP-191":
        text += good
    if rule == "Duration":
        text = text.replace("tandem.box.v1", "tandem.gateway.v1")
        path = tmp_path / "tandem" / "gateway" / "v1" / "box.proto"
        path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    (file,) = parse([path], tmp_path)
    assert any(rule in offence for offence in Lint(file).run())
