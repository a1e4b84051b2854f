-- Something of every kind that PostgreSQL 13 and newer have, without anything from outside its own packages.
CREATE ROLE e2e_owner;
CREATE ROLE e2e_reader LOGIN PASSWORD 'se''cret; --';
GRANT e2e_owner TO e2e_reader;
CREATE SCHEMA shop AUTHORIZATION e2e_owner;
CREATE SCHEMA "Odd ""schema""; drop";
COMMENT ON SCHEMA shop IS 'what''s sold; -- here';
CREATE TYPE shop.state AS ENUM ('new', 'paid', 'it''s gone');
CREATE TYPE shop.point3 AS (x int, y int, "z z" text);
CREATE DOMAIN shop.price AS numeric(12, 2) CHECK (VALUE >= 0) DEFAULT 0;
CREATE TYPE shop.span AS RANGE (subtype = float8);
CREATE COLLATION shop.plain (provider = libc, locale = 'C');

CREATE FUNCTION shop.twice(n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
CREATE FUNCTION shop.audit() RETURNS trigger LANGUAGE plpgsql AS $fn$ BEGIN NEW.note := coalesce(NEW.note, 'none;'); RETURN NEW; END $fn$;
CREATE PROCEDURE shop.nothing() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE shop.total(bigint) (sfunc = int8pl, stype = bigint, initcond = '0');
CREATE OPERATOR shop.=== (leftarg = bigint, rightarg = bigint, function = int8eq);

CREATE TABLE shop.users (
  id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 7) PRIMARY KEY,
  name text COLLATE shop.plain NOT NULL UNIQUE,
  "weird ""col""; x" int DEFAULT 5
);
CREATE TABLE shop.orders (
  id serial PRIMARY KEY,
  user_id bigint NOT NULL REFERENCES shop.users ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  state shop.state NOT NULL DEFAULT 'new',
  price shop.price,
  doubled numeric GENERATED ALWAYS AS (price * 2) STORED,
  note text,
  dropped int,
  at timestamptz NOT NULL DEFAULT '2024-02-29 12:00:00.123456+02',
  CONSTRAINT sane CHECK (price < 1e9)
);
ALTER TABLE shop.orders DROP COLUMN dropped;
CREATE INDEX orders_by_state ON shop.orders (state, lower(note)) WHERE price > 0;
CREATE UNIQUE INDEX ON shop.orders ((id + 1)) INCLUDE (note);
CREATE STATISTICS shop.together (dependencies) ON user_id, state FROM shop.orders;
CREATE TRIGGER audited BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.audit();
CREATE RULE keep AS ON DELETE TO shop.orders WHERE OLD.state = 'paid' DO INSTEAD NOTHING;
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.orders FOR SELECT TO e2e_reader USING (note = current_user);
COMMENT ON COLUMN shop.orders.note IS E'tab\there';

INSERT INTO shop.users (name) SELECT 'user ' || n FROM generate_series(1, 200) n;
INSERT INTO shop.orders (user_id, state, price, note)
  SELECT 100 + 7 * (n % 200), (ARRAY['new', 'paid', 'it''s gone'])[1 + n % 3]::shop.state, n * 1.25,
         CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN E'tab\tnew\nline\\back\r' WHEN 2 THEN '\N' ELSE repeat('ä€😀', 3) END
  FROM generate_series(1, 3000) n;
UPDATE shop.orders SET price = price + 1 WHERE id % 7 = 0;
DELETE FROM shop.orders WHERE state = 'new' AND id % 11 = 0;

CREATE TABLE shop.types (
  a smallint, b integer, c bigint, d numeric, e real, f double precision, g money, h boolean,
  i char(5), j varchar(9), k text, l bytea, m date, n time, o timetz, p timestamp, q timestamptz, r interval,
  s uuid, t json, u jsonb, v xml, w inet, x cidr, y macaddr, z macaddr8, aa bit(5), ab bit varying(9),
  ac tsvector, ad tsquery, ae point, af line, ag lseg, ah box, ai path, aj polygon, ak circle,
  al int4range, am int8range, an numrange, ao tsrange, ap tstzrange, aq daterange, ar shop.span,
  at int[], au text[][], av shop.state[], aw shop.point3, ax shop.point3[], ay oid, az regclass, ba regtype,
  bb name, bc "char", bd pg_lsn, be jsonpath, bf txid_snapshot, bg shop.price[], bh xid
);
INSERT INTO shop.types VALUES (
  -32768, 2147483647, -9223372036854775808, 'NaN', '-Infinity', 1e-307, 12.34, true,
  'ab', 'cd', E'\\.\n\t', '\x00ff5c0a0d', 'infinity', '23:59:59.999999', '01:02:03+14', '-infinity', '4713-01-01 BC', '-1 year 2 mons -3 days 04:05:06.7',
  'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a" :  [1, null]}', '{"b": "\u00e4"}', '<a b="c">d</a>', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'10101', B'1',
  'a:1A b:2', 'a & !b', '(1,2)', '{1,-1,0}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,0),(1,1))', '<(0,0),1>',
  '[1,5)', 'empty', '(,1.5]', '[2024-01-01,)', '[2024-01-01 00:00+00,2024-01-02 00:00+00)', '[2024-01-01,2024-02-01)', '[0.1,0.2]',
  '{1,NULL,3}', '{{"a","b"},{"c,","\"d\""}}', '{new,"it''s gone"}', '(1,,"x ""y""")', ARRAY['(1,2,a)'::shop.point3], 4294967295, 'shop.users', 'shop.state',
  'name', 'c', '16/B374D848', '$.a[*] ? (@ > 1)', '10:20:10,14,15', '{1.50,NULL}', '42'
);
INSERT INTO shop.types DEFAULT VALUES;

CREATE TABLE shop.events (id bigint, day date NOT NULL, body text) PARTITION BY RANGE (day);
CREATE TABLE shop.events_a PARTITION OF shop.events FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE shop.events_b PARTITION OF shop.events FOR VALUES FROM ('2024-02-01') TO ('2024-03-01') PARTITION BY HASH (id);
CREATE TABLE shop.events_b0 PARTITION OF shop.events_b FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE shop.events_b1 PARTITION OF shop.events_b FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE shop.events_rest PARTITION OF shop.events DEFAULT;
CREATE INDEX ON shop.events (id);
INSERT INTO shop.events SELECT n, '2024-01-01'::date + n % 80, 'event ' || n FROM generate_series(1, 500) n;

CREATE TABLE shop.parent (id int, common text);
CREATE TABLE shop.child (own text) INHERITS (shop.parent);
INSERT INTO shop.parent VALUES (1, 'parent');
INSERT INTO shop.child VALUES (2, 'child', 'own');

CREATE UNLOGGED TABLE shop.volatile AS SELECT 1 AS one;
CREATE TABLE shop.nothing ();
INSERT INTO shop.nothing DEFAULT VALUES;
CREATE TABLE shop.computed (c int GENERATED ALWAYS AS (1 + 1) STORED);
INSERT INTO shop.computed DEFAULT VALUES;
CREATE TABLE shop.typed OF shop.point3;
INSERT INTO shop.typed VALUES (1, 2, 'three');

CREATE TABLE "Odd ""schema""; drop"."%Odd/table.. 'x'; --" ("select" int PRIMARY KEY, "a.b" text);
INSERT INTO "Odd ""schema""; drop"."%Odd/table.. 'x'; --" VALUES (1, 'one'), (2, NULL);
CREATE SEQUENCE "Odd ""schema""; drop"."seq 'x'" START 5 MINVALUE -10 MAXVALUE 1000 CYCLE;
SELECT nextval('"Odd ""schema""; drop"."seq ''x''"');
SELECT nextval('"Odd ""schema""; drop"."seq ''x''"');
CREATE SEQUENCE shop.untouched AS smallint START 3;

CREATE VIEW shop.paid WITH (security_barrier) AS SELECT * FROM shop.orders WHERE state = 'paid';
CREATE MATERIALIZED VIEW shop.sums AS SELECT user_id, sum(price) AS total FROM shop.orders GROUP BY user_id;
CREATE MATERIALIZED VIEW shop.sums_of_sums AS SELECT sum(total) AS total FROM shop.sums;
CREATE MATERIALIZED VIEW shop.not_yet AS SELECT 1 AS one WITH NO DATA;
CREATE UNIQUE INDEX ON shop.sums (user_id);
CREATE FOREIGN DATA WRAPPER dummy;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER dummy OPTIONS (host 'nowhere');
CREATE FOREIGN TABLE shop.remote (id int) SERVER elsewhere;
CREATE PUBLICATION changes FOR TABLE shop.users;
CREATE FUNCTION shop.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER noticed ON ddl_command_end EXECUTE FUNCTION shop.on_ddl();
CREATE TEXT SEARCH CONFIGURATION shop.simple_copy (COPY = simple);
CREATE CAST (bigint AS shop.state) WITH INOUT;

SELECT lo_from_bytea(70001, 'hello');
SELECT lo_from_bytea(70002, '');
SELECT lo_from_bytea(140000, decode(repeat('00ff5c0a', 200000), 'hex'));
COMMENT ON LARGE OBJECT 70001 IS 'greeting';
GRANT SELECT ON LARGE OBJECT 70001 TO e2e_reader;
ALTER LARGE OBJECT 70002 OWNER TO e2e_owner;

ALTER TABLE shop.users OWNER TO e2e_owner;
GRANT SELECT, INSERT ON shop.orders TO e2e_reader;
GRANT SELECT (id, name) ON shop.users TO PUBLIC;
GRANT USAGE ON SCHEMA shop TO e2e_reader WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO e2e_reader;
