//! What goes wrong says on which object, and leaves no snapshot that pretends to be whole.

use std::process::Stdio;

use snap_testkit::PostgresServer;

use super::{Shop, text};

/// A server with a database and a role that may read all of it.
fn prepare(database: &str, role: &str) -> &'static PostgresServer {
    let server = PostgresServer::shared();
    server.create(database);
    server.run("postgres", &format!("CREATE ROLE {role} LOGIN PASSWORD 'right'"));
    server.run(database, &format!("CREATE TABLE fine (id int); CREATE TABLE secret (id int, owner text); GRANT SELECT ON fine, secret TO {role}"));
    server
}

#[test]
fn a_table_that_may_not_be_read_is_named() {
    let server = prepare("forbidden", "clerk");
    let shop = Shop::new(server);
    let uri = server.uri("clerk", "forbidden");
    shop.run(&["backup", "--source", &uri]).summary(0);
    server.run("forbidden", "REVOKE SELECT ON secret FROM clerk; CREATE SEQUENCE \"hidden one\"");
    let ran = shop.run(&["backup", "--source", &uri]);
    assert_eq!(ran.code, 1);
    let said = text(&ran);
    assert!(said.contains("secret") && said.contains("hidden one") && !said.contains("fine"), "{said}");
    assert_eq!(shop.snapshots(), 1);
}

#[test]
fn rows_that_a_policy_hides_are_not_left_out_in_silence() {
    let server = prepare("policies", "teller");
    server.run("policies", "INSERT INTO secret VALUES (1, 'teller'), (2, 'other'); ALTER TABLE secret ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON secret USING (owner = current_user)");
    let shop = Shop::new(server);
    let ran = shop.run(&["backup", "--source", &server.uri("teller", "policies")]);
    let said = text(&ran);
    assert!(ran.code == 1 && said.contains("secret") && said.contains("row-level security"), "{said}");
    assert_eq!(shop.snapshots(), 0);
    // Whom the policies do not bind gets all.
    server.run("postgres", "ALTER ROLE teller BYPASSRLS");
    shop.run(&["backup", "--source", &server.uri("teller", "policies"), "--dataset", "db"]).summary(0);
    let cat =
        shop.lab.command("host", &["cat", "latest:/policies/tables/public/secret.copy"]).output().unwrap();
    assert_eq!(String::from_utf8(cat.stdout).unwrap(), "1\tteller\n2\tother\n");
}

#[test]
fn passwords_come_from_where_libpq_takes_them() {
    let server = prepare("passwords", "cashier");
    let shop = Shop::new(server);
    let uri = |login: &str| format!("postgres://{login}@127.0.0.1:{}/passwords", server.port);
    let none = shop.run(&["backup", "--source", &uri("cashier")]);
    assert!(none.code == 1 && text(&none).contains("PGPASSWORD"), "{}", text(&none));
    let wrong = shop.run(&["backup", "--source", &uri("cashier:wr0ng")]);
    assert!(wrong.code == 1 && text(&wrong).contains("password authentication failed"), "{}", text(&wrong));
    assert!(!text(&wrong).contains("wr0ng"));
    shop.run(&["backup", "--source", &uri("cashier:right")]).summary(0);
    let with = |name: &str, value: &str| {
        let mut command = shop.lab.command("host", &["backup", "--source", &uri("cashier"), "--json"]);
        crate::lab::finish(command.env(name, value).output().unwrap())
    };
    with("PGPASSWORD", "right").summary(0);
    let file = shop.lab.path("pgpass");
    std::fs::write(&file, format!("127.0.0.1:{}:passwords:cashier:right\n", server.port)).unwrap();
    with("PGPASSFILE", file.to_str().unwrap()).summary(0);
    assert_eq!(shop.snapshots(), 3);
}

#[test]
fn a_server_that_is_not_there_or_a_database_that_is_not_there() {
    let server = PostgresServer::shared();
    let shop = Shop::new(server);
    let gone = shop.run(&["backup", "--source", "postgres://me@/shop?host=/nowhere&port=7"]);
    assert!(gone.code == 1 && text(&gone).contains("/nowhere"), "{}", text(&gone));
    let missing = shop.backup("not there", &[]);
    assert!(missing.code == 1 && text(&missing).contains("not there"), "{}", text(&missing));
    let strange = shop.run(&["backup", "--source", "oracle://x/y"]);
    assert_eq!(strange.code, 2);
    assert_eq!(shop.snapshots(), 0);
}

#[test]
fn a_target_that_is_not_empty_stays_as_it_is() {
    let server = prepare("occupied", "guard");
    server.run("occupied", "INSERT INTO fine VALUES (1)");
    let shop = Shop::new(server);
    shop.backup("occupied", &[]).summary(0);
    server.run("occupied", "INSERT INTO fine VALUES (2)");
    let ran = shop.restore("latest", "occupied");
    assert!(ran.code == 1 && text(&ran).contains("not empty"), "{}", text(&ran));
    assert_eq!(server.run("occupied", "SELECT count(*) FROM fine").trim(), "2");
}

#[test]
fn sessions_that_are_cut_leave_no_snapshot() {
    let server = PostgresServer::shared();
    server.create("sessions");
    server.run("postgres", "CREATE ROLE unlucky LOGIN SUPERUSER");
    server.run(
        "sessions",
        "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 20) AS pad FROM generate_series(1, 200000) n",
    );
    let shop = Shop::new(server);
    let uri = server.uri("unlucky", "sessions");
    let mut child = shop.lab.command("host", &["backup", "--source", &uri, "--json"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Cut as soon as rows flow, and from then on whatever is tried.
    let copies =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'unlucky' AND query LIKE '%COPY%big%'";
    while child.try_wait().unwrap().is_none() {
        if server.run("postgres", copies).trim() != "0" {
            server.disconnect("unlucky");
        }
    }
    let ran = crate::lab::finish(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 1, "{}", text(&ran));
    assert!(text(&ran).contains("no snapshot was made"), "{}", text(&ran));
    assert_eq!(shop.snapshots(), 0);
    // The same again, undisturbed.
    shop.run(&["backup", "--source", &uri]).summary(0);
}
