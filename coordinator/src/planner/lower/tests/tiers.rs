//! Where operators run: what tables say, what follows from it, what a person sees of it.

use super::*;
use ef_proto::place::Constraint;
use ef_proto::plan::{Plan, dot};

/// A source with event time; `place`: options behind a comma.
fn source(name: &str, place: &str) -> String {
    format!(
        "CREATE TABLE {name} (k STRING, v DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen'{place});\n"
    )
}

fn sink(name: &str, place: &str) -> String {
    format!("CREATE TABLE {name} (k STRING, v DOUBLE) WITH ('connector' = 'blackhole'{place});\n")
}

const GATEWAY: &str = ", 'tier' = 'gateway', 'site.selector' = 'plant=a,line=*'";
const CLOUD: &str = ", 'tier' = 'cloud'";

const COUNTS: &str = "SELECT k, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE g, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) \
                      GROUP BY k, window_start, window_end;";

/// Each operator's kind and place, in the plan's order.
fn places(plan: &Plan) -> Vec<(&str, String)> {
    let kind = |name: &str| name.find('(').unwrap_or(name.len());
    plan.operators.iter().map(|op| (&op.name[..kind(&op.name)], op.constraint.to_string())).collect()
}

#[track_caller]
fn place(plan: &Plan, name: &str) -> String {
    let mut found = plan.operators.iter().filter(|op| op.name == name);
    let (Some(op), None) = (found.next(), found.next()) else { panic!("not one {name}:\n{}", text(plan)) };
    op.constraint.to_string()
}

#[test]
fn work_runs_where_its_input_does() {
    let plan = planned(&format!("{}{COUNTS}", source("g", GATEWAY)), 2);
    let here = "tier gateway, sites line=*,plant=a".to_string();
    let places = places(&plan);
    for kind in ["Source", "LocalWindowAggregate", "GlobalWindowAggregate", "Sink"] {
        assert!(places.contains(&(kind, here.clone())), "{kind}: {places:?}");
    }
    assert!(places.iter().all(|(_, place)| *place == here), "{places:?}");
}

#[test]
fn rows_of_several_places_meet_on_the_highest_tier_at_any_site() {
    let query = "INSERT INTO o SELECT k, v FROM g WHERE v > 1 UNION ALL SELECT k, v FROM h WHERE v > 2;";
    for (other, set, expected) in [
        (GATEWAY, "", "tier gateway, sites line=*,plant=a"),
        (", 'tier' = 'gateway', 'site.selector' = 'plant=b'", "", "tier gateway"),
        (", 'site.selector' = 'plant=b'", "", "tier gateway"),
        (CLOUD, "", "tier cloud"),
        (", 'tier' = 'device'", "", "tier gateway"),
        (", 'tier' = 'device'", "SET 'tier' = 'Regional';", "tier regional"),
        (CLOUD, "SET 'tier' = 'device';", "tier cloud"),
    ] {
        let tables = source("g", GATEWAY) + &source("h", other) + &sink("o", "");
        let plan = planned(&format!("{set}{tables}{query}"), 1);
        assert_eq!(place(&plan, "Sink(o)"), expected, "{other} {set}");
        // What reads one of them only stays there.
        let calcs: Vec<String> =
            places(&plan).into_iter().filter(|(kind, _)| *kind == "Calc").map(|(_, p)| p).collect();
        assert!(calcs.contains(&place(&plan, "Source(g)")) && calcs.contains(&place(&plan, "Source(h)")), "{calcs:?}");
    }
}

#[test]
fn a_join_of_two_tiers_runs_on_the_higher_one() {
    let windowed =
        |table: &str| format!("SELECT * FROM TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(ts), INTERVAL '1' MINUTE))");
    let query = format!(
        "SELECT a.k, b.v FROM ({}) a JOIN ({}) b \
         ON a.window_start = b.window_start AND a.window_end = b.window_end AND a.k = b.k;",
        windowed("g"),
        windowed("h")
    );
    let plan = planned(&format!("{}{}{query}", source("g", GATEWAY), source("h", ", 'tier' = 'regional'")), 2);
    assert_eq!(place(&plan, "WindowJoin(Inner)"), "tier regional");
    assert_eq!(place(&plan, "Sink(stdout)"), "tier regional");
}

#[test]
fn a_sink_is_where_its_table_says_even_below_its_input() {
    let tables = source("c", CLOUD) + &sink("o", GATEWAY) + &sink("p", "");
    let sql = format!("{tables} INSERT INTO o SELECT k, v FROM c; INSERT INTO p SELECT k, v FROM c;");
    let plan = planned(&sql, 1);
    assert_eq!(place(&plan, "Sink(o)"), "tier gateway, sites line=*,plant=a");
    assert_eq!(place(&plan, "Sink(p)"), "tier cloud");
}

#[test]
fn the_tier_of_the_job_is_for_what_no_table_places() {
    let tables = source("c", CLOUD) + &source("s", ", 'site.selector' = 'plant=b'") + &source("t", "");
    let tables = tables + &sink("o", "") + &sink("p", "") + &sink("q", ", 'tier' = 'device'");
    let plan = planned(
        &format!(
            "SET 'tier' = 'regional'; {tables} INSERT INTO o SELECT k, v FROM c; INSERT INTO p SELECT k, v FROM s; \
             INSERT INTO q SELECT k, v FROM t;"
        ),
        1,
    );
    assert_eq!(place(&plan, "Source(c)"), "tier cloud");
    assert_eq!(place(&plan, "Source(s)"), "tier regional, sites plant=b");
    assert_eq!(place(&plan, "Source(t)"), "tier regional");
    assert_eq!(place(&plan, "Sink(o)"), "tier cloud", "nobody has asked for rows to go down");
    assert_eq!(place(&plan, "Sink(p)"), "tier regional, sites plant=b");
    assert_eq!(place(&plan, "Sink(q)"), "tier device");
    assert_eq!(plan.config["tier"], "regional");
    // Above the sources' tier it is where the results go.
    let plan = planned(&format!("SET 'tier' = 'cloud'; {}{COUNTS}", source("g", GATEWAY)), 1);
    assert_eq!(place(&plan, "Sink(stdout)"), "tier cloud");
    assert_eq!(place(&plan, "WindowAggregate(TUMBLE(1 min) by k)"), "tier gateway, sites line=*,plant=a");
}

#[test]
fn operators_of_different_places_share_no_task() {
    let sql = |place: &str| format!("{}{} INSERT INTO o SELECT k, v FROM g;", source("g", GATEWAY), sink("o", place));
    assert_eq!(planned(&sql(""), 2).tasks().tasks.len(), 1);
    let apart = planned(&sql(CLOUD), 2);
    let tasks = apart.tasks();
    assert_eq!((tasks.tasks.len(), tasks.regions), (2, 1));
    assert!(apart.edges.iter().all(|edge| edge.exchange == Exchange::Forward), "places do not change exchanges");
}

#[test]
fn ids_do_not_depend_on_places() {
    let ids = |set: &str, at: &str, to: &str| -> Vec<_> {
        let tables = source("g", at) + &source("h", at) + &sink("o", to);
        let union = "INSERT INTO o SELECT k, v FROM g WHERE v > 1 UNION ALL SELECT k, v FROM h;";
        let groups = "INSERT INTO o SELECT k, CAST(COUNT(*) AS DOUBLE) FROM TABLE(TUMBLE(TABLE g, DESCRIPTOR(ts), \
                      INTERVAL '1' MINUTE)) GROUP BY k, window_start, window_end;";
        planned(&format!("{set} {tables} {union} {groups}"), 3).operators.iter().map(|op| op.id).collect()
    };
    let plain = ids("", "", "");
    assert!(plain.len() > 5);
    assert_eq!(plain, ids("", GATEWAY, CLOUD));
    assert_eq!(plain, ids("SET 'tier' = 'regional';", "", ", 'site.selector' = 'plant=b'"));
}

#[test]
fn explain_shows_places_where_there_are_any() {
    let sql = |at: &str, to: &str| format!("{}{} INSERT INTO o SELECT k, v FROM g;", source("g", at), sink("o", to));
    let plan = planned(&sql(GATEWAY, CLOUD), 2);
    let shown = text(&plan);
    assert!(
        shown.contains(" p=2 on tier gateway, sites line=*,plant=a\n") && shown.contains(" p=2 on tier cloud\n"),
        "{shown}"
    );
    let shown = dot(&plan);
    assert!(
        shown.contains("\\np=2\\ntier gateway, sites line=*,plant=a\"") && shown.contains("\\ntier cloud\""),
        "{shown}"
    );
    let shown = serde_json::to_value(&plan).unwrap();
    let place = serde_json::json!({ "tier": "gateway", "selector": "line=*,plant=a" });
    assert_eq!(shown["operators"][0]["constraint"], place);
    let read: Constraint = serde_json::from_value(place).unwrap();
    assert_eq!(read, plan.operators[0].constraint);
    let plain = planned(&sql("", ""), 2);
    assert!(!text(&plain).contains(" on ") && !dot(&plain).contains("tier"), "{}", text(&plain));
    let shown = serde_json::to_value(&plain).unwrap();
    assert_eq!(shown["operators"][0].get("constraint"), None);
}
