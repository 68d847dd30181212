//! Descriptors against protox's: what a message is made of survives pruning, and columns that do not fit are named.

use super::{DESCRIPTOR_BYTES_MAX, Kind, Shape, Unset, base64, compile, prune, prune_text};
use crate::schema::{DataType, Field, Schema, Unit};
use prost_reflect::DescriptorPool;

const SOURCE: &str = r#"
syntax = "proto3";
package a.b;
import "google/protobuf/timestamp.proto";
// A comment that no worker needs.
message Order {
  int64 id = 1;
  optional string note = 2;
  repeated sint32 deltas = 3;
  repeated string tags = 4;
  map<string, Outer.Inner> items = 5;
  google.protobuf.Timestamp at = 6;
  oneof choice { Outer.Kind kind = 7; bytes raw = 8; string unread = 9; }
  Order parent = 10;
}
message Outer { int32 not_needed = 1; message Inner { double x = 1; } enum Kind { A = 0; B = 5; C = 5; option allow_alias = true; } }
message Other { Outer outer = 1; }
service Shop { rpc Buy(Order) returns (Other); }
"#;

fn set(source: &str) -> Vec<u8> {
    struct One(String);
    impl protox::file::FileResolver for One {
        fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
            match name {
                "one.proto" => protox::file::File::from_source(name, &self.0),
                other => protox::file::GoogleFileResolver::new().open_file(other),
            }
        }
    }
    let mut compiler = protox::Compiler::with_file_resolver(One(source.into()));
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file("one.proto").expect("the test's own source");
    compiler.encode_file_descriptor_set()
}

fn field(name: &str, ty: DataType) -> Field {
    Field::new(name, ty, true)
}

#[test]
fn pruning_keeps_what_the_message_is_made_of_and_nothing_else() {
    let whole = set(SOURCE);
    let text = prune(&whole, "a.b.Order").expect("it is there");
    assert_eq!(prune_text(&text, "a.b.Order"), Ok(text.clone()), "pruned twice is pruned once");
    let bytes = base64::decode(&text).unwrap();
    assert!(bytes.len() * 2 < whole.len(), "{} of {} bytes", bytes.len(), whole.len());
    let (whole, pruned) =
        (DescriptorPool::decode(&whole[..]).unwrap(), super::descriptor::Pool::parse(&bytes).unwrap());
    for name in ["a.b.Order", "a.b.Outer.Inner", "google.protobuf.Timestamp", "a.b.Order.ItemsEntry"] {
        let fields = &pruned.message(name).expect(name).0.field;
        let expected = whole.get_message_by_name(name).unwrap();
        let expected: Vec<(String, u32)> = expected.fields().map(|f| (f.name().to_owned(), f.number())).collect();
        let mut found: Vec<(String, u32)> = fields.iter().map(|f| (f.name().to_owned(), f.number() as u32)).collect();
        found.sort_by_key(|(_, number)| *number);
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(pruned.enumeration("a.b.Outer.Kind").unwrap(), [(0, "A".into()), (5, "B".into()), (5, "C".into())]);
    assert!(pruned.message("a.b.Other").is_err() && pruned.message("a.b.Outer").unwrap().0.field.is_empty());
}

#[test]
fn columns_find_their_fields() {
    let descriptor = prune(&set(SOURCE), "a.b.Order").unwrap();
    let inner = DataType::Row(vec![field("x", DataType::Float64)]);
    let schema = Schema::new(vec![
        field("tags", DataType::Array(Box::new(DataType::String))),
        field("id", DataType::Int32),
        field("deltas", DataType::Array(Box::new(DataType::Int64))),
        field("items", DataType::Map(Box::new(DataType::String), Box::new(inner))),
        field("at", DataType::TimestampLtz(Unit::Milli)),
        field("kind", DataType::String),
        field("note", DataType::String),
    ]);
    let message = compile(&descriptor, "a.b.Order", &schema).expect("all of them fit");
    let numbers: Vec<u32> = message.fields.iter().map(|field| field.number).collect();
    assert_eq!(numbers, [4, 1, 3, 5, 6, 7, 2]);
    assert_eq!(message.fields[0].shape, Shape::Repeated { kind: Kind::String, packed: false });
    assert_eq!(message.fields[1].shape, Shape::Single { kind: Kind::Int64, presence: false, default: Unset::Zero });
    assert_eq!(message.fields[2].shape, Shape::Repeated { kind: Kind::Sint32, packed: true });
    assert!(matches!(&message.fields[4].shape, Shape::Single { kind: Kind::Timestamp, presence: true, .. }));
    assert!(matches!(&message.fields[6].shape, Shape::Single { kind: Kind::String, presence: true, .. }));
    assert_eq!(
        (message.fields[5].oneof, message.fields[6].oneof),
        (Some(0), None),
        "`optional` is no oneof to compete in"
    );
    assert_eq!(message.rivals, [(8, 0), (9, 0)]);
}

#[test]
fn columns_that_do_not_fit_are_named() {
    let descriptor = prune(&set(SOURCE), "a.b.Order").unwrap();
    let row = |fields: Vec<Field>| DataType::Row(fields);
    for (column, says) in [
        (field("idd", DataType::Int64), "column `idd`: there is no such field, expected id, note,"),
        (
            field("id", DataType::String),
            "column `id`: the field is an int64 and the column is STRING, expected TINYINT, SMALLINT, INT or BIGINT",
        ),
        (
            field("tags", DataType::String),
            "column `tags`: the field is repeated and the column is STRING, expected ARRAY",
        ),
        (
            field("items", DataType::Array(Box::new(DataType::String))),
            "column `items`: the field is a map and the column is ARRAY<STRING>, expected MAP",
        ),
        (
            field("at", DataType::String),
            "column `at`: the field is a google.protobuf.Timestamp and the column is STRING",
        ),
        (
            field("kind", DataType::Bytes),
            "column `kind`: the field is an enum and the column is BYTES, expected STRING or INT",
        ),
        (
            field("parent", DataType::String),
            "column `parent`: the field is a message a.b.Order and the column is STRING, expected ROW",
        ),
        (
            field("parent", row(vec![field("parent", row(vec![field("x", DataType::Int8)]))])),
            "column `parent.parent.x`: there is no such field",
        ),
    ] {
        let error = compile(&descriptor, "a.b.Order", &Schema::new(vec![column])).unwrap_err();
        assert!(error.starts_with(says), "{error}, expected {says}");
    }
}

#[test]
fn files_that_are_none_are_refused() {
    let error = prune(&set(SOURCE), "a.b.Ordre").unwrap_err();
    assert!(error.contains("no message 'a.b.Ordre', expected a.b.Order, a.b.Other"), "{error}");
    assert!(prune(b"syntax = \"proto3\";", "a.B").unwrap_err().contains("--descriptor_set_out=FILE"));
    assert!(prune(b"", "a.B").unwrap_err().contains("empty"));
    let fields: String = (1..6_000).map(|n| format!("int32 a_field_with_a_long_name_{n} = {n};\n")).collect();
    let error = prune(&set(&format!("syntax = \"proto3\"; message Big {{ {fields} }}")), "Big").unwrap_err();
    assert!(error.contains(&format!("expected at most {DESCRIPTOR_BYTES_MAX}")), "{error}");
}
