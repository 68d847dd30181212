//! Options of WITH: what is accepted, and what an error says.

use super::*;
use crate::connector::{DatagenField, OnError, TimestampFormat};
use crate::schema::{DataType, Field, Unit};

fn options(pairs: &[(&str, &str)]) -> Options {
    Options::new("t", pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
}

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::String, true),
        Field::new("ts", DataType::Timestamp(Unit::Milli), true),
    ])
}

/// Parses as a source table does: connector, what is common, nothing left.
fn source(pairs: &[(&str, &str)]) -> Result<(SourceConnector, Option<Format>, SourceCommon), OptionError> {
    let mut options = options(pairs);
    let (connector, format) = SourceConnector::parse(&mut options, &schema())?;
    let common = SourceCommon::parse(&mut options)?;
    options.finish()?;
    Ok((connector, format, common))
}

fn sink(pairs: &[(&str, &str)], changelog: bool) -> Result<(SinkConnector, Option<Format>), OptionError> {
    let mut options = options(pairs);
    let parsed = SinkConnector::parse(&mut options, &schema(), &[], changelog)?;
    SourceCommon::parse(&mut options)?;
    options.finish()?;
    Ok(parsed)
}

#[test]
fn a_filesystem_source_takes_flinks_options() {
    let (connector, format, common) = source(&[
        ("connector", "filesystem"),
        ("path", "file:///data/in"),
        ("format", "json"),
        ("source.monitor-interval", "5 s"),
        ("source.split-size", "4mb"),
        ("compression", "gzip"),
        ("json.timestamp-format.standard", "ISO-8601"),
        ("json.fail-on-missing-field", "false"),
        ("error.table", "dead"),
        ("late.table", "late"),
        ("scan.watermark.idle-timeout", "10 s"),
        ("sink.rolling-policy.file-size", "1 mb"),
    ])
    .expect("all options are known");
    let expected = FilesystemSource {
        path: "/data/in".into(),
        monitor_interval_ms: Some(5_000),
        compression: Compression::Gzip,
        split_bytes: 4 << 20,
    };
    assert_eq!(connector, SourceConnector::Filesystem(expected));
    let Some(Format::Json(json)) = format else { panic!("json expected") };
    assert_eq!(json.timestamps, TimestampFormat::Iso8601);
    assert_eq!(json.on_error, OnError::Skip, "an error table means skipping");
    assert_eq!(common.error_table.as_deref(), Some("dead"));
    assert_eq!(common.late_table.as_deref(), Some("late"));
    assert_eq!(common.idle_timeout_ms, Some(10_000));
}

#[test]
fn ignored_parse_errors_null_fields_unless_an_error_table_wants_the_rows() {
    for (format, key) in [("json", "json.ignore-parse-errors"), ("csv", "csv.ignore-parse-errors")] {
        let mut options = vec![("connector", "filesystem"), ("path", "x"), ("format", format), (key, "true")];
        for expected in [OnError::Null, OnError::Skip] {
            let found = match source(&options).expect("known options").1 {
                Some(Format::Json(json)) => json.on_error,
                Some(Format::Csv(csv)) => csv.on_error,
                other => panic!("{other:?}"),
            };
            assert_eq!(found, expected, "{options:?}");
            options.push(("error.table", "dead"));
        }
    }
}

#[test]
fn an_error_names_the_key_what_was_found_and_what_would_be_accepted() {
    let fs = [("connector", "filesystem"), ("path", "x"), ("format", "csv")];
    let with = |key, value| [&fs[..], &[(key, value)]].concat();
    for (pairs, key, message) in [
        (
            vec![],
            "connector",
            "table `t`: option 'connector' is missing, expected 'filesystem', 'kafka', 'mqtt', 'datagen' or 'nexmark' (for a table that is read)",
        ),
        (
            vec![("connector", "pulsar")],
            "connector",
            "table `t`: option 'connector': found 'pulsar', expected 'filesystem', 'kafka', 'mqtt', 'datagen' or 'nexmark' (for a table that is read)",
        ),
        (
            vec![("connector", "filesystem"), ("format", "csv")],
            "path",
            "table `t`: option 'path' is missing, expected a file, a directory or a glob",
        ),
        (
            with("csv.allow-comment", "true"),
            "csv.allow-comment",
            "table `t`: unknown option 'csv.allow-comment', did you mean 'csv.allow-comments'",
        ),
        (
            with("csv.header", "yes"),
            "csv.header",
            "table `t`: option 'csv.header': found 'yes', expected 'true' or 'false'",
        ),
        (
            with("csv.field-delimiter", "||"),
            "csv.field-delimiter",
            "table `t`: option 'csv.field-delimiter': found '||', expected one ASCII character, or '\\t'",
        ),
        (
            with("source.monitor-interval", "soon"),
            "source.monitor-interval",
            "table `t`: option 'source.monitor-interval': found 'soon', expected a duration of at least 1 ms like '500 ms', '5 s'",
        ),
        (
            vec![("connector", "datagen"), ("fields.idd.min", "1")],
            "fields.idd.min",
            "table `t`: unknown option 'fields.idd.min', did you mean 'fields.id.min' or 'fields.id.kind' or 'fields.id.max'",
        ),
        (
            vec![("connector", "datagen"), ("fields.id.min", "5"), ("fields.id.max", "4")],
            "fields.id.min",
            "table `t`: option 'fields.id.min' is greater than 'fields.id.max', expected it to be at most that",
        ),
        (
            vec![("connector", "datagen"), ("tier", "moon")],
            "tier",
            "table `t`: option 'tier': found 'moon', expected 'device', 'gateway', 'regional' or 'cloud'",
        ),
        (
            vec![("connector", "datagen"), ("site.selector", "plant")],
            "site.selector",
            "table `t`: option 'site.selector': found 'plant', expected labels with their values like 'plant=a,line=*'",
        ),
        (
            vec![("connector", "nexmark")],
            "connector",
            "table `t`: connector 'nexmark' has no column `id`, expected `event_type`, `person`, `auction`, `bid`",
        ),
    ] {
        let error = source(&pairs).expect_err("not acceptable");
        assert_eq!((error.key.as_str(), error.message.as_str()), (key, message));
    }
}

#[test]
fn a_changelog_reaches_files_only_as_changelog_json() {
    let json = [("connector", "filesystem"), ("path", "x"), ("format", "json")];
    assert!(sink(&json, false).is_ok());
    assert!(sink(&json, true).expect_err("json has no row kinds").message.contains("expected 'changelog-json'"));
    let changelog = [("connector", "filesystem"), ("path", "x"), ("format", "changelog-json")];
    assert!(matches!(sink(&changelog, true), Ok((_, Some(Format::ChangelogJson(_))))));
    assert!(source(&changelog).is_err());
    assert!(matches!(
        sink(&[("connector", "print"), ("print-identifier", "p")], true),
        Ok((SinkConnector::Print { .. }, None))
    ));
    assert!(matches!(sink(&[("connector", "blackhole")], true), Ok((SinkConnector::Blackhole, None))));
}

#[test]
fn datagen_fields_follow_their_columns() {
    let (connector, _, _) = source(&[
        ("connector", "datagen"),
        ("rows-per-second", "100"),
        ("number-of-rows", "1000"),
        ("seed", "7"),
        ("fields.id.kind", "sequence"),
        ("fields.id.start", "1"),
        ("fields.id.end", "500"),
        ("fields.ts.event-time.start", "2026-03-14 00:00:00"),
        ("fields.ts.event-time.step", "250 us"),
        ("fields.ts.event-time.max-disorder", "2 s"),
    ])
    .expect("all options are known");
    let SourceConnector::Datagen(datagen) = &connector else { panic!("datagen expected") };
    assert_eq!(datagen.number_of_rows, Some(500), "the sequence is shorter");
    assert_eq!(
        datagen.fields,
        [
            DatagenField::Sequence { start: 1, end: 500 },
            DatagenField::Text { length: 100, distinct: None, null_rate: 0.0 },
            DatagenField::EventTime { start_ms: Some(1_773_446_400_000), step_us: 250, disorder_ms: 2_000 },
        ]
    );
    let mut pruned = connector.clone();
    pruned.prune(&[2, 0]);
    let SourceConnector::Datagen(pruned) = pruned else { panic!("datagen expected") };
    assert_eq!(pruned.fields, [datagen.fields[2].clone(), datagen.fields[0].clone()]);
}

#[test]
fn csv_characters_and_quoting_are_checked() {
    let fs = [("connector", "filesystem"), ("path", "x"), ("format", "csv")];
    let parse = |more: &[(&str, &str)]| sink(&[&fs[..], more].concat(), false);
    let Ok((_, Some(Format::Csv(csv)))) = parse(&[("csv.field-delimiter", "\\t"), ("csv.null-literal", "n/a")]) else {
        panic!("csv expected")
    };
    assert_eq!((csv.delimiter, csv.quote, csv.null_literal.as_deref()), (b'\t', Some(b'"'), Some("n/a")));
    let Ok((_, Some(Format::Csv(csv)))) = parse(&[("csv.disable-quote-character", "true")]) else {
        panic!("csv expected")
    };
    assert_eq!(csv.quote, None);
    assert!(parse(&[("csv.disable-quote-character", "true"), ("csv.quote-character", "'")]).is_err());
    assert!(parse(&[("csv.quote-character", ",")]).is_err());
}

#[test]
fn any_table_may_say_where_it_is() {
    let place = [("tier", "Gateway"), ("site.selector", "plant=a, line=*")];
    let labels = [("line".to_string(), "*".to_string()), ("plant".to_string(), "a".to_string())];
    let expected = Constraint { tier: Some(Tier::Gateway), selector: Selector(labels.into()) };
    let files = [("connector", "filesystem"), ("path", "x"), ("format", "json")];
    for connector in [&files[..], &[("connector", "datagen")]] {
        assert_eq!(source(&[connector, &place].concat()).expect("known options").2.constraint, expected);
        assert!(source(connector).expect("known options").2.constraint.is_any());
    }
    for connector in [&files[..], &[("connector", "print")], &[("connector", "blackhole")]] {
        assert!(sink(&[connector, &place].concat(), false).is_ok());
    }
}
