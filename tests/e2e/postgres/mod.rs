//! PostgreSQL, against the machine's own server: what comes back is compared by the server's own dump.

mod trouble;

use std::sync::OnceLock;

use serde_json::Value;
use snap_testkit::PostgresServer;

use crate::lab::{Lab, Ran};

const EVERYTHING: &str = include_str!("everything.sql");

/// A database with something of every kind, made once.
fn everything() -> &'static PostgresServer {
    static MADE: OnceLock<()> = OnceLock::new();
    let server = PostgresServer::shared();
    MADE.get_or_init(|| {
        server.create("everything");
        server.run("everything", EVERYTHING);
    });
    server
}

/// A repository, and backups of databases into it.
struct Shop {
    lab: Lab,
    server: &'static PostgresServer,
}

impl Shop {
    fn new(server: &'static PostgresServer) -> Self {
        let lab = Lab::new();
        lab.run("host", &["init"]).summary(0);
        Self { lab, server }
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.lab.run("host", args)
    }

    fn backup(&self, database: &str, more: &[&str]) -> Ran {
        let uri = self.server.uri("postgres", database);
        self.run(&[&["backup", "--source", &uri, "--dataset", "db"], more].concat())
    }

    fn restore(&self, what: &str, database: &str) -> Ran {
        self.run(&["restore", what, "--target", &self.server.uri("postgres", database)])
    }

    fn snapshots(&self) -> usize {
        self.run(&["snapshots"]).lines.iter().filter(|line| line["event"] == "snapshot").count()
    }

    fn paths(&self) -> Vec<String> {
        let ran = self.run(&["ls", "latest"]);
        ran.lines.iter().filter_map(|line| line["path"].as_str()).map(str::to_owned).collect()
    }
}

fn text(ran: &Ran) -> String {
    ran.lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + &ran.stderr
}

#[test]
fn everything_comes_back() {
    let server = everything();
    let shop = Shop::new(server);
    shop.backup("everything", &[]).summary(0);
    let restored = shop.restore("latest", "everything again");
    let summary = restored.summary(0);
    assert_eq!(summary["created"], true);
    let rows = server
        .run("everything", "SELECT (SELECT count(*) FROM shop.orders) + (SELECT count(*) FROM shop.events)");
    assert!(summary["rows"].as_u64().unwrap() > rows.trim().parse::<u64>().unwrap());
    pretty_assert(&server.dump("everything"), &server.dump("everything again"));
    // Not in what pg_dump prints for one database.
    let large =
        "SELECT md5(lo_get(140000)), length(lo_get(140000)), pg_sequence_last_value('shop.orders_id_seq')";
    assert_eq!(server.run("everything", large), server.run("everything again", large));
}

/// Shows the first lines that differ, not thousands.
#[track_caller]
fn pretty_assert(one: &str, other: &str) {
    for (at, (one, other)) in one.lines().zip(other.lines()).enumerate() {
        assert_eq!(one, other, "line {}", at + 1);
    }
    assert_eq!(one.lines().count(), other.lines().count());
}

#[test]
fn a_database_is_a_tree_that_stays_the_same() {
    // One of its own: roles that other tests make belong to every database of a server.
    let server: &'static PostgresServer = Box::leak(Box::new(PostgresServer::start()));
    server.create("tree");
    server.run("tree", "CREATE TABLE t (id int PRIMARY KEY, x text); CREATE TABLE u (id int); INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 1000) n");
    let shop = Shop::new(server);
    let first = shop.backup("tree", &[]);
    assert_eq!(first.summary(0)["files"], 7);
    let expected = [
        "/tree",
        "/tree/about.json",
        "/tree/globals.sql",
        "/tree/schema.dump",
        "/tree/schema.sql",
        "/tree/sequences.copy",
        "/tree/tables",
        "/tree/tables/public",
        "/tree/tables/public/t.copy",
        "/tree/tables/public/u.copy",
    ];
    assert_eq!(shop.paths(), expected);
    let cat = shop.lab.command("host", &["cat", "latest:/tree/tables/public/t.copy"]).output().unwrap();
    let rows: String = (1..=1000).map(|n| format!("{n}\trow {n}\n")).collect();
    assert_eq!(String::from_utf8(cat.stdout).unwrap(), rows);
    let schema = shop.lab.command("host", &["cat", "latest:/tree/schema.sql"]).output().unwrap();
    assert!(String::from_utf8(schema.stdout).unwrap().contains("CREATE TABLE public.t ("));

    // Nothing changed: nothing differs, to the last bit.
    let again = shop.backup("tree", &["--skip-if-unchanged"]);
    assert_eq!(
        (again.summary(0)["snapshot"].is_null(), again.summary(0)["files_unchanged"].as_u64()),
        (true, Some(7))
    );
    server.run("tree", "INSERT INTO u VALUES (1)");
    let changed = shop.backup("tree", &[]);
    assert_eq!(changed.summary(0)["files_changed"], 1);
    let diff = shop.run(&["diff", "latest~1", "latest"]);
    let changes: Vec<_> =
        diff.lines.iter().filter(|line| line["event"] == "change").map(|line| line["path"].clone()).collect();
    assert_eq!(changes, ["/tree/tables/public/u.copy"]);
}

#[test]
fn a_table_or_a_schema_comes_back_alone() {
    let server = everything();
    let shop = Shop::new(server);
    shop.backup("everything", &[]).summary(0);
    let count = |database: &str, table: &str| {
        server.run(database, &format!("SELECT count(*) FROM {table}")).trim().to_owned()
    };

    // The type and the trigger's function come along; the key to a table that does not come is left out, and said.
    server.create("one table");
    let one = shop.restore("latest:/everything/tables/shop/orders.copy", "one table");
    assert_eq!(one.summary(0)["tables"], 1);
    assert!(text(&one).contains("FK CONSTRAINT"), "{}", text(&one));
    assert_eq!(count("one table", "shop.orders"), count("everything", "shop.orders"));
    let has = "SELECT count(*) FROM pg_trigger WHERE tgname = 'audited' UNION ALL SELECT count(*) FROM pg_indexes WHERE tablename = 'orders' UNION ALL SELECT last_value FROM shop.orders_id_seq";
    assert_eq!(server.run("one table", has), server.run("everything", has));

    // What is there is not overwritten.
    let refused = shop.restore("latest:/everything/tables/shop/orders.copy", "one table");
    assert!(refused.code == 1 && text(&refused).contains("orders"), "{}", text(&refused));

    // Another table beside it, which needs nothing that is not there.
    let second = shop.restore("latest:/everything/tables/shop/users.copy", "one table");
    assert_eq!(second.summary(0)["rows"], 200);

    let odd = "Odd \"schema\"; drop".replace('/', "%2F");
    let path = format!("latest:/everything/tables/{odd}");
    let schema = shop.restore(&path, "one schema");
    assert_eq!(schema.summary(0)["rows"], 2, "{}", text(&schema));
    let table = "\"Odd \"\"schema\"\"; drop\".\"%Odd/table.. 'x'; --\"";
    assert_eq!(count("one schema", table), "2");
    let sequence = "SELECT last_value FROM \"Odd \"\"schema\"\"; drop\".\"seq 'x'\"";
    assert_eq!(server.run("one schema", sequence).trim(), "6");
}

#[test]
fn all_tables_are_of_one_moment() {
    let server = PostgresServer::shared();
    server.create("moment");
    server.run("moment", "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY, n int, pad text); INSERT INTO a SELECT n, 100 FROM generate_series(1, 2000) n; INSERT INTO b SELECT n, 100, repeat('x', 500) FROM generate_series(1, 20000) n");
    let shop = Shop::new(server);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Each moves one from a table to the other: their sum is the same in every moment.
            let exact = "DO $$ DECLARE k int := 1 + (random() * 1900)::int; BEGIN UPDATE a SET n = n - 1 WHERE id = k; \
                         UPDATE b SET n = n + 1 WHERE id = k; END $$;\n";
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                server.run("moment", &exact.repeat(200));
            }
        });
        for _ in 0..3 {
            shop.backup("moment", &["--readers", "3"]).summary(0);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    for (at, name) in ["latest", "latest~1", "latest~2"].iter().enumerate() {
        let database = format!("moment {at}");
        shop.restore(name, &database).summary(0);
        let sum = server.run(&database, "SELECT (SELECT sum(n) FROM a) + (SELECT sum(n) FROM b)");
        assert_eq!(sum.trim(), "2200000");
    }
}

#[test]
fn a_dataset_names_its_database() {
    let server = PostgresServer::shared();
    server.create("configured");
    server.run("configured", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let shop = Shop::new(server);
    let config = format!(
        "[dataset.orders]\nsource = \"{}\"\ntags = [\"nightly\"]\n",
        server.uri("postgres", "configured")
    );
    let file = shop.lab.path("snap.toml");
    std::fs::write(&file, config).unwrap();
    let ran = shop.run(&["-c", file.to_str().unwrap(), "backup", "--dataset", "orders"]);
    assert_eq!(ran.summary(0)["dataset"], "orders");
    assert!(shop.paths().contains(&"/configured/tables/public/t.copy".to_owned()));
}

#[test]
fn what_restores_into_a_directory_is_what_was_dumped() {
    let server = everything();
    let shop = Shop::new(server);
    shop.backup("everything", &[]).summary(0);
    let target = shop.lab.path("files");
    shop.run(&["restore", "latest:/everything", "--target", target.to_str().unwrap()]).summary(0);
    let users = std::fs::read_to_string(target.join("tables/shop/users.copy")).unwrap();
    assert_eq!(users.lines().count(), 200);
    let expected = server
        .run("everything", "COPY (SELECT id, name, \"weird \"\"col\"\"; x\" FROM shop.users) TO STDOUT");
    assert_eq!(users, expected);
}

#[test]
fn columns_are_found_by_name_where_their_order_changes() {
    // A column that came late to a parent stands before the child's own when both are made anew.
    let server = PostgresServer::shared();
    server.create("columns");
    let make = "CREATE TABLE parent (a int); CREATE TABLE child (own text, \"ow\"\"n\" int) INHERITS (parent); \
                ALTER TABLE parent ADD COLUMN later int DEFAULT 7; INSERT INTO child VALUES (1, 'x', 2, 3)";
    server.run("columns", make);
    let shop = Shop::new(server);
    shop.backup("columns", &[]).summary(0);
    shop.restore("latest", "columns again").summary(0);
    let row = "SELECT a, own, \"ow\"\"n\", later FROM child";
    assert_eq!(
        (server.run("columns again", row), server.run("columns", row).as_str()),
        ("1|x|2|3\n".into(), "1|x|2|3\n")
    );
}

#[test]
fn a_database_of_another_encoding_and_a_name_that_looks_like_something_else() {
    let server = PostgresServer::shared();
    let name = "dbname=x 'y' \"z\"/\\ ;";
    let quoted = name.replace('"', "\"\"");
    let make = format!("CREATE DATABASE \"{quoted}\" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    server.run("postgres", &make);
    let fill = "SET client_encoding = 'UTF8'; CREATE TABLE \"café; --\" (\"ä'\\\" int, t text); \
                INSERT INTO \"café; --\" VALUES (1, 'été'), (2, E'\\\\.'); CREATE SEQUENCE \"séq\"; SELECT setval('\"séq\"', 42);";
    server.run(name, fill);
    let describe = format!(
        "SET client_encoding = 'UTF8'; ALTER DATABASE \"{quoted}\" SET search_path = \"$user\", public; \
         ALTER DATABASE \"{quoted}\" SET datestyle = 'German, DMY'; COMMENT ON DATABASE \"{quoted}\" IS 'it''s; é'"
    );
    server.run(name, &describe);
    let shop = Shop::new(server);
    shop.backup(name, &[]).summary(0);
    let cat =
        shop.lab.command("host", &["cat", "latest:/dbname=x 'y' \"z\"%2F\\ ;/schema.sql"]).output().unwrap();
    assert!(String::from_utf8(cat.stdout).unwrap().contains("CREATE TABLE public.\"café; --\""));
    let again = "again = '\\\"";
    shop.restore("latest", again).summary(0);
    pretty_assert(&server.dump(name), &server.dump(again));
    let described = "SET client_encoding = 'UTF8'; SELECT pg_encoding_to_char(encoding), datcollate, shobj_description(d.oid, 'pg_database'), s.setconfig \
                     FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid WHERE datname = current_database()";
    assert_eq!(server.run(name, described), server.run(again, described));
    assert!(server.run(again, described).starts_with("LATIN1|C|"));
}
