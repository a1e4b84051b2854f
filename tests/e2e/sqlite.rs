//! SQLite, through the binary.

use rusqlite::Connection;

use crate::lab::Lab;

#[test]
fn a_file_in_use_is_backed_up_and_comes_back_under_another_name() {
    let lab = Lab::new();
    lab.run("host", &["init"]).summary(0);
    let path = lab.path("app.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1), (2)")
        .unwrap();
    let uri = format!("sqlite://{}", path.display());
    let ran = lab.run("host", &["backup", "--source", &uri]);
    assert_eq!(
        (ran.summary(0)["dataset"].as_str(), ran.summary(0)["files"].as_u64()),
        (Some("app"), Some(3))
    );
    let again = lab.run("host", &["backup", "--source", &uri, "--skip-if-unchanged"]);
    assert!(again.summary(0)["snapshot"].is_null());

    let target = lab.path("back.db");
    let target_uri = format!("sqlite://{}", target.display());
    lab.run("host", &["restore", "latest", "--target", &target_uri]).summary(0);
    let count = |sql: &str| {
        Connection::open(&target).unwrap().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(count("SELECT sum(x) FROM t"), 3);
    // Not over what is there.
    assert_eq!(lab.run("host", &["restore", "latest", "--target", &target_uri]).code, 1);

    let snapshots = lab.run("host", &["snapshots"]);
    let facts = &snapshots.lines[0]["database"];
    assert_eq!((facts["kind"].as_str(), facts["facts"]["rows"].as_str()), (Some("sqlite"), Some("2")));

    // What is known of the database outlives a snapshot that is written anew.
    let erase = ["erase", "--path", "/app.db/schema.sql", "--reason", "a test", "--yes"];
    lab.run("host", &erase).summary(0);
    assert_eq!(lab.run("host", &["snapshots"]).lines[0]["database"], *facts);

    let missing = format!("sqlite://{}", lab.path("none.db").display());
    let ran = lab.run("host", &["backup", "--source", &missing]);
    assert!(ran.code == 1 && !lab.path("none.db").exists());
}
