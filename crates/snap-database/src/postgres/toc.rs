//! The table of contents of an archive of definitions, as `pg_restore --list --verbose` prints it, and choosing from it.

use std::collections::{BTreeMap, BTreeSet};

/// `pg_class`, as a number of an object's catalog.
const PG_CLASS: u32 = 1259;

/// What belongs to something else, and comes along with it.
const ATTACHED: [&str; 18] = [
    "INDEX ATTACH",
    "INDEX",
    "FK CONSTRAINT",
    "CHECK CONSTRAINT",
    "CONSTRAINT",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "DEFAULT",
    "SEQUENCE OWNED BY",
    "SEQUENCE",
    "TABLE ATTACH",
    "STATISTICS",
    "COMMENT",
    "ACL",
    "SECURITY LABEL",
    "MATERIALIZED VIEW DATA",
];

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) id: u32,
    catalog: u32,
    oid: u32,
    /// Kind, schema, name and owner.
    pub(super) text: String,
    needs: Vec<u32>,
}

impl Item {
    pub(super) fn is(&self, kind: &str) -> bool {
        self.text.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' '))
    }

    /// Whether it is a table, and which, by its number.
    pub(super) fn table(&self) -> Option<u32> {
        self.is_table().then_some(self.oid)
    }

    fn is_table(&self) -> bool {
        self.is("TABLE") && self.catalog == PG_CLASS
    }

    fn is_attached(&self) -> bool {
        ATTACHED.iter().any(|kind| self.is(kind))
    }
}

/// Reads the list.
pub(super) fn parse(list: &str) -> Vec<Item> {
    let mut out: Vec<Item> = Vec::new();
    for line in list.lines() {
        if let Some(needs) = line.strip_prefix(";\tdepends on:") {
            if let Some(last) = out.last_mut() {
                last.needs = needs.split_whitespace().filter_map(|id| id.parse().ok()).collect();
            }
        } else if let Some(item) = item(line) {
            out.push(item);
        }
    }
    out
}

/// `id; catalog oid text`.
fn item(line: &str) -> Option<Item> {
    let (id, rest) = line.split_once("; ")?;
    let mut words = rest.splitn(3, ' ');
    let (id, catalog, oid) = (id.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Item { id, catalog, oid, text: words.next()?.to_owned(), needs: Vec::new() })
}

/// What of an archive is restored.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// What the chosen needs and the target may have already.
    pub(super) needed: BTreeSet<u32>,
    /// What was chosen, and what hangs on it.
    pub(super) chosen: BTreeSet<u32>,
    /// Numbers of all tables among both.
    pub(super) tables: BTreeSet<u32>,
    /// What hangs on it, and on tables that are not restored.
    pub(super) left_out: Vec<String>,
}

impl Choice {
    /// Adds what is said of a schema that the target does not have yet: its privileges and its comment.
    pub(super) fn describe_schema(&mut self, items: &[Item], schema: &str) {
        let begin = format!("SCHEMA - {schema} ");
        for made in items.iter().filter(|item| item.text.starts_with(&begin)) {
            let of_it = items.iter().filter(|item| item.needs.contains(&made.id));
            let of_it = of_it.filter(|item| item.is("ACL") || item.is("COMMENT"));
            self.chosen.extend(
                of_it.filter(|item| item.text.contains(&format!(" - SCHEMA {schema} "))).map(|item| item.id),
            );
        }
    }
}

/// Chooses entries, what they need, and what hangs on them and on no table that is left out.
pub(super) fn choose(items: &[Item], wanted: &BTreeSet<u32>) -> Choice {
    let by_id: BTreeMap<u32, &Item> = items.iter().map(|item| (item.id, item)).collect();
    let mut choice = Choice::default();
    let mut all = BTreeSet::new();
    for item in items.iter().filter(|item| wanted.contains(&item.id) && !item.is_attached()) {
        choice.chosen.insert(item.id);
        all.extend(below(&by_id, item.id, &all));
    }
    // Each round may add what the next one hangs something on: a comment on a constraint.
    loop {
        let before = all.len();
        for item in items.iter().filter(|item| item.is_attached()) {
            // What hangs on something that is merely needed, and may be there already, stays as it is there.
            let hangs = item.needs.iter().any(|id| choice.chosen.contains(id));
            let is_meant = wanted.contains(&item.id) || hangs;
            if !is_meant || all.contains(&item.id) {
                continue;
            }
            let more = below(&by_id, item.id, &all);
            if more.iter().any(|id| by_id[id].is_table()) {
                continue;
            }
            choice.chosen.insert(item.id);
            all.extend(more);
        }
        if all.len() == before {
            break;
        }
    }
    let hangs = |item: &&Item| item.is_attached() && !all.contains(&item.id);
    let hangs =
        items.iter().filter(hangs).filter(|item| item.needs.iter().any(|id| choice.chosen.contains(id)));
    choice.left_out = hangs.map(|item| item.text.clone()).collect();
    choice.tables = all.iter().filter(|id| by_id[id].is_table()).map(|id| by_id[id].oid).collect();
    choice.needed = all.difference(&choice.chosen).copied().collect();
    choice
}

/// An entry and all that it needs, directly or not, but for what is there already.
fn below(by_id: &BTreeMap<u32, &Item>, id: u32, known: &BTreeSet<u32>) -> BTreeSet<u32> {
    let (mut out, mut waiting) = (BTreeSet::new(), vec![id]);
    while let Some(id) = waiting.pop() {
        if let Some(item) = by_id.get(&id)
            && !known.contains(&id)
            && out.insert(id)
        {
            waiting.extend(&item.needs);
        }
    }
    out
}

/// The list that `--use-list` takes, in the order of the archive.
pub(super) fn list(items: &[Item], ids: &BTreeSet<u32>) -> String {
    let chosen = items.iter().filter(|item| ids.contains(&item.id));
    chosen.map(|item| format!("{}; {} {} {}\n", item.id, item.catalog, item.oid, item.text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = ";
; Archive created at 2000-01-01 00:00:00 UTC
;     Format: CUSTOM
;
;
; Selected TOC Entries:
;
6; 2615 2200 SCHEMA - shop owner
2; 1247 100 TYPE shop state owner
;	depends on: 6
10; 1259 501 TABLE shop orders owner
;	depends on: 2 6
11; 1259 502 TABLE shop users owner
;	depends on: 6
12; 1259 503 SEQUENCE shop orders_id_seq owner
;	depends on: 10 6
20; 2604 600 DEFAULT shop orders id owner
;	depends on: 12 10
21; 2606 601 CONSTRAINT shop orders orders_pkey owner
;	depends on: 10
22; 2606 602 CONSTRAINT shop users users_pkey owner
;	depends on: 11
23; 2606 603 FK CONSTRAINT shop orders to_users owner
;	depends on: 22 10 11
24; 0 0 COMMENT shop CONSTRAINT orders_pkey ON orders owner
;	depends on: 21
25; 1255 700 FUNCTION shop audit() owner
;	depends on: 6
26; 2620 701 TRIGGER shop orders audited owner
;	depends on: 25 10
27; 1255 702 FUNCTION shop other() owner
;	depends on: 6
28; 1259 703 SEQUENCE shop unrelated owner
;	depends on: 6
29; 0 0 ACL - SCHEMA shop owner
;	depends on: 6
";

    #[test]
    fn a_table_comes_with_what_it_needs_and_what_hangs_on_it_alone() {
        let items = parse(LIST);
        assert_eq!(items.len(), 15);
        let choice = choose(&items, &BTreeSet::from([10]));
        assert_eq!(choice.chosen, BTreeSet::from([10, 12, 20, 21, 24, 26]));
        assert_eq!(choice.needed, BTreeSet::from([2, 6, 25]));
        assert_eq!(choice.tables, BTreeSet::from([501]));
        assert_eq!(choice.left_out, ["FK CONSTRAINT shop orders to_users owner"]);
        let mut new = choose(&items, &BTreeSet::from([10]));
        new.describe_schema(&items, "shop");
        assert_eq!(new.chosen.difference(&choice.chosen).collect::<Vec<_>>(), [&29]);
        let both = choose(&items, &BTreeSet::from([10, 11]));
        assert!(both.chosen.contains(&23) && both.left_out.is_empty());
        let list = list(&items, &choice.needed);
        assert_eq!(
            list,
            "6; 2615 2200 SCHEMA - shop owner\n2; 1247 100 TYPE shop state owner\n25; 1255 700 FUNCTION shop audit() owner\n"
        );
    }

    #[test]
    fn a_name_that_looks_like_a_list_is_no_entry() {
        let items = parse("5; 1259 9 TABLE public a 6; 1259 10 TABLE b owner\n");
        assert_eq!((items.len(), items[0].id, items[0].is("TABLE")), (1, 5, true));
    }
}
