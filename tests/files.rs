//! Files as sources and sinks: CSV, compressed files, globs and directories, metadata and computed columns, and large
//! files that several subtasks read in parts.

use ef_tests::Run;
use ef_tests::rows::{Row, assert_same, directory, ndjson};
use ef_tests::seed::seed;
use ef_tests::table::{json, objects};
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("below the test's directory")).expect("writable");
    std::fs::write(path, bytes).expect("writable");
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text).expect("memory");
    gzip.finish().expect("memory")
}

/// Splits CSV into rows of fields; None: an unquoted `NULL`.
fn parse_csv(text: &str) -> Vec<Vec<Option<String>>> {
    let mut rows = vec![];
    let (mut row, mut field, mut was_quoted) = (vec![], String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                was_quoted = true;
                while let Some(c) = chars.next() {
                    if c != '"' {
                        field.push(c);
                    } else if chars.next_if_eq(&'"').is_some() {
                        field.push('"');
                    } else {
                        break;
                    }
                }
            }
            ',' | '\n' => {
                let text = std::mem::take(&mut field);
                row.push((std::mem::take(&mut was_quoted) || text != "NULL").then_some(text));
                if c == '\n' {
                    rows.push(std::mem::take(&mut row));
                }
            }
            c => field.push(c),
        }
    }
    assert!(row.is_empty() && field.is_empty(), "the last line has an end");
    rows
}

/// Texts that CSV has trouble with.
fn awkward(rng: &mut SmallRng) -> Option<String> {
    const PIECES: [&str; 12] = ["", "a", "\"", "\"\"", ",", "\n", "\r\n", " ", "#", "NULL", "ä€", "'"];
    (!rng.random_bool(0.15)).then(|| (0..rng.random_range(0..4)).map(|_| PIECES[rng.random_range(0..12)]).collect())
}

/// The files of a sink that are for others to read.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("written").map(|entry| entry.expect("readable").path());
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut files: Vec<_> = entries.filter(|path| !hidden(path)).collect();
    files.sort();
    files
}

#[test]
fn csv_keeps_quotes_newlines_and_the_difference_of_empty_and_null() {
    let seed = seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let rows: Vec<(usize, Option<String>, Option<f64>, Option<String>)> = (0..5000)
        .map(|id| {
            let number = rng.random_bool(0.9).then(|| f64::from(rng.random_range(-100..100)) / 4.0);
            (id, awkward(&mut rng), number, awkward(&mut rng))
        })
        .collect();
    let field = |text: &Option<String>, rng: &mut SmallRng| match text {
        None => "NULL".to_string(),
        Some(text) if text.contains(['"', ',', '\n', '\r']) || text == "NULL" || rng.random_bool(0.5) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Some(text) => text.clone(),
    };
    let mut text = String::from("id,name,v,note\n");
    for (id, name, v, note) in &rows {
        let (name, note) = (field(name, &mut rng), field(note, &mut rng));
        writeln!(text, "{id},{name},{},{note}", v.map_or(String::new(), |v| v.to_string())).expect("memory");
    }
    let work = tempfile::tempdir().expect("a temporary directory");
    write(&work.path().join("in.csv"), text.as_bytes());
    let columns = "(id BIGINT, name STRING, v DOUBLE, note STRING)";
    let csv = "'format' = 'csv', 'csv.header' = 'true', 'csv.null-literal' = 'NULL'";
    let sql = format!(
        "CREATE TABLE original {columns} WITH ('connector' = 'filesystem', 'path' = 'in.csv', {csv}, 'source.split-size' = '4kb');
         CREATE TABLE copy {columns} WITH ('connector' = 'filesystem', 'path' = 'copy', {csv});
         INSERT INTO copy SELECT * FROM original;
         SELECT * FROM original;"
    );
    let done = Run::sql(work.path(), &sql).args(&["-p", "2"]).done().success();
    let what = format!("EDGEFLOW_SEED={seed}");
    let found = objects(&done.stdout);
    assert_eq!(found.len(), rows.len(), "{what}");
    let by_id: BTreeMap<u64, _> = found.into_iter().map(|row| (row["id"].as_u64().expect("an id"), row)).collect();
    for (id, name, v, note) in &rows {
        let row = &by_id[&(*id as u64)];
        assert_eq!(row["name"].as_str(), name.as_deref(), "{what}: name of row {id}");
        assert_eq!(row["v"].as_f64(), *v, "{what}: v of row {id}");
        assert_eq!(row["note"].as_str(), note.as_deref(), "{what}: note of row {id}");
    }
    // Each part file has a header.
    let mut copied = BTreeMap::new();
    for file in parts(&work.path().join("copy")) {
        let mut lines = parse_csv(&std::fs::read_to_string(file).expect("text")).into_iter();
        let header: Vec<_> = lines.next().expect("a header").into_iter().flatten().collect();
        assert_eq!(header, ["id", "name", "v", "note"]);
        copied.extend(lines.map(|row| (row[0].clone().expect("an id"), row)));
    }
    assert_eq!(copied.len(), rows.len(), "{what}");
    for (id, name, v, note) in rows {
        let row = &copied[&id.to_string()];
        assert_eq!((&row[1], &row[3]), (&name, &note), "{what}: copy of row {id}");
        assert_eq!(row[2].as_ref().map(|v| v.parse::<f64>().expect("a number")), v, "{what}: copy of row {id}");
    }
}

fn id_lines(ids: impl Iterator<Item = usize>) -> String {
    ids.map(|id| format!("{{\"id\":{id}}}\n")).collect()
}

#[test]
fn gzip_zstd_globs_and_directories_are_read_whole() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let data = work.path().join("data");
    let part = |n: usize| id_lines(n * 1000..(n + 1) * 1000);
    write(&data.join("a.ndjson"), part(0).as_bytes());
    // Two members, as `cat a.gz b.gz` makes them; and a last line without an end.
    write(&data.join("b.ndjson.gz"), &[gzip(part(1).as_bytes()), gzip(part(2).trim_end().as_bytes())].concat());
    let frames = [part(3), part(4)].map(|text| zstd::encode_all(text.as_bytes(), 1).expect("memory"));
    write(&data.join("below/c.ndjson.zst"), &frames.concat());
    // No files of the table: hidden, being written, empty.
    write(&data.join(".hidden.ndjson"), b"not JSON");
    write(&data.join("_temporary/d.ndjson"), b"not JSON");
    write(&data.join("empty.ndjson"), b"");
    for (path, parts) in [
        ("data", vec![0, 1, 2, 3, 4]),
        ("data/*.ndjson*", vec![0, 1, 2]),
        ("data/**/*.zst", vec![3, 4]),
        ("data/[ab].*", vec![0, 1, 2]),
    ] {
        for parallelism in ["1", "3"] {
            let sql = format!(
                "CREATE TABLE t (id BIGINT) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'json'); SELECT id FROM t;"
            );
            let done = Run::sql(work.path(), &sql).args(&["-p", parallelism]).done().success();
            let expected = parts.iter().flat_map(|n| n * 1000..(n + 1) * 1000).map(|id| vec![id.to_string()]).collect();
            assert_same(path, ndjson(&done.stdout, &["id".into()]), expected, 0.0);
        }
    }
}

#[test]
fn compressed_sinks_write_what_their_standard_tools_read() {
    let work = tempfile::tempdir().expect("a temporary directory");
    write(&work.path().join("in.ndjson"), id_lines(0..20_000).as_bytes());
    let table = |name: &str, more: &str| {
        format!(
            "CREATE TABLE {name} (id BIGINT) WITH ('connector' = 'filesystem', 'path' = '{name}', 'format' = 'json' {more});"
        )
    };
    let sql = [
        table("source", "").replace("'path' = 'source'", "'path' = 'in.ndjson'"),
        table("gz", ", 'compression' = 'gzip'"),
        table("zst", ", 'compression' = 'zstd', 'sink.rolling-policy.file-size' = '64kb'"),
        "INSERT INTO gz SELECT * FROM source; INSERT INTO zst SELECT * FROM source;".into(),
    ];
    Run::sql(work.path(), &sql.concat()).done().success();
    let mut texts = BTreeMap::from([("gz", String::new()), ("zst", String::new())]);
    for (folder, text) in &mut texts {
        let files = parts(&work.path().join(folder));
        assert!(!files.is_empty());
        for file in files {
            let bytes = std::fs::read(&file).expect("readable");
            let ending = file.extension().and_then(|e| e.to_str()).expect("an ending");
            assert_eq!(ending, *folder, "{}", file.display());
            match *folder {
                "gz" => drop(MultiGzDecoder::new(&bytes[..]).read_to_string(text).expect("gzip")),
                _ => text.push_str(&String::from_utf8(zstd::decode_all(&bytes[..]).expect("zstd")).expect("text")),
            }
        }
        let expected = (0..20_000).map(|id| vec![id.to_string()]).collect();
        assert_same(folder, ndjson(text, &["id".into()]), expected, 0.0);
    }
}

#[test]
fn a_large_file_gives_the_same_rows_to_any_number_of_subtasks() {
    let seed = seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    // Lines of very different lengths, a few longer than a split and than a read.
    let lengths: Vec<usize> = (0..60_000)
        .map(|i| if i % 9000 == 17 { rng.random_range(10_000..400_000) } else { rng.random_range(0..60) })
        .collect();
    let (mut ndjson_text, mut csv_text) = (String::new(), String::new());
    for (id, length) in lengths.iter().enumerate() {
        let text = "x".repeat(*length);
        let end = if rng.random_bool(0.1) { "\r\n" } else { "\n" };
        write!(ndjson_text, "{{\"id\":{id},\"text\":\"{text}\"}}{end}").expect("memory");
        write!(csv_text, "{id};{text}{end}").expect("memory");
        if rng.random_bool(0.01) {
            ndjson_text.push('\n');
            csv_text.push('\n');
        }
    }
    let work = tempfile::tempdir().expect("a temporary directory");
    write(&work.path().join("in.ndjson"), ndjson_text.trim_end().as_bytes());
    write(&work.path().join("in.csv"), csv_text.as_bytes());
    let expected: Vec<Row> = lengths.iter().enumerate().map(|(id, n)| vec![id.to_string(), n.to_string()]).collect();
    let csv = "'csv', 'csv.field-delimiter' = ';', 'csv.disable-quote-character' = 'true'";
    for (file, format) in [("in.ndjson", "'json'"), ("in.csv", csv)] {
        for (parallelism, split) in [("1", "16mb"), ("1", "5kb"), ("4", "100kb"), ("4", "5kb")] {
            let sql = format!(
                "CREATE TABLE t (id BIGINT, text STRING) WITH ('connector' = 'filesystem', 'path' = '{file}', 'format' = {format},
                   'source.split-size' = '{split}');
                 CREATE TABLE result (id BIGINT, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'result-{parallelism}-{split}-{file}', 'format' = 'json');
                 INSERT INTO result SELECT id, CHAR_LENGTH(text) FROM t;"
            );
            let what = format!("EDGEFLOW_SEED={seed}, {file} at parallelism {parallelism} with splits of {split}");
            let done = Run::sql(work.path(), &sql).args(&["-p", parallelism, "--summary-json", "summary.json"]).done();
            assert_eq!(done.code, Some(0), "{what}: {}", done.stderr);
            let found = directory(&work.path().join(format!("result-{parallelism}-{split}-{file}")));
            assert_same(&what, ndjson(&found, &["id".into(), "n".into()]), expected.clone(), 0.0);
            let source = &json(&work.path().join("summary.json"))["sources"][0];
            assert_eq!(source["rows"], lengths.len(), "{what}");
        }
    }
}

#[test]
fn metadata_and_computed_columns_say_where_a_row_comes_from() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let files = [("data/a.ndjson", 3), ("data/below/b.ndjson", 5)];
    for (path, rows) in files {
        write(&work.path().join(path), id_lines(0..rows).as_bytes());
    }
    let sql = "CREATE TABLE t (
                 id BIGINT,
                 twice AS id * 2,
                 `path` STRING METADATA FROM 'file.path',
                 `file.name` STRING NOT NULL METADATA,
                 bytes BIGINT METADATA FROM 'file.size' VIRTUAL,
                 changed TIMESTAMP_LTZ(3) METADATA FROM 'file.modification-time',
                 label AS UPPER(`file.name`) || '-' || CAST(id AS STRING)
               ) WITH ('connector' = 'filesystem', 'path' = 'data', 'format' = 'json');
               SELECT id, twice, `path`, `file.name`, bytes, label, changed > TIMESTAMP '2026-01-01 00:00:00' AS recent FROM t;";
    let done = Run::sql(work.path(), sql).done().success();
    let mut expected = Vec::new();
    for (path, rows) in files {
        let name = path.rsplit('/').next().expect("a name");
        for id in 0..rows {
            let label = format!("{}-{id}", name.to_uppercase());
            let bytes = id_lines(0..rows).len().to_string();
            expected.push(vec![
                id.to_string(),
                (id * 2).to_string(),
                path.into(),
                name.into(),
                bytes,
                label,
                "true".into(),
            ]);
        }
    }
    let columns = ["id", "twice", "path", "file.name", "bytes", "label", "recent"].map(String::from);
    assert_same("columns", ndjson(&done.stdout, &columns), expected, 0.0);
}
