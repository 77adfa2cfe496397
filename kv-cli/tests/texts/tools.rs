//! The texts of the commands that check, repair, compare and copy stores.

use crate::command::Kv;
use crate::listing::Row;
use std::fs;

/// The complaint of a command with two directories; that of `kv` is the first one.
fn between(kv: &Kv, command: &str, other: &Kv) -> String {
    let words = format!("{command} {} {}", kv.path().display(), other.path().display());
    kv.complaint_of(&words).replace(other.path().to_str().unwrap(), "/other")
}

#[expect(clippy::disallowed_methods, reason = "the rows damage a store")]
pub(crate) fn rows() -> Vec<Row> {
    let (store, none, other) = (Kv::with_store(), Kv::new(), Kv::with_store());
    other.complaint("put l 1");
    let damaged = Kv::with_store();
    let path = damaged.path().join("0000000000000001.segment");
    let mut bytes = fs::read(&path).unwrap();
    // The value.
    bytes[55] ^= 1;
    fs::write(&path, bytes).unwrap();
    let naive = Kv::new();
    naive.complaint("--engine naive put k v");
    let line = |number: usize| format!("{{\"key\":\"k{number}\",\"value\":\"v\"}}\n");
    vec![
        ("kv verify: there is no store", none.complaint("verify")),
        ("kv verify: the store is damaged", damaged.complaint("verify")),
        ("kv verify DIR, with --dir", store.complaint("verify x")),
        ("kv inspect: it is a store of the naive engine", naive.complaint("inspect")),
        ("kv dump --segment 63", store.complaint("dump --segment 63")),
        ("kv repair: the new directory holds a store", between(&damaged, "repair", &other)),
        ("kv diff: the stores differ", between(&store, "diff", &other)),
        ("kv copy: the new directory holds a store", between(&store, "copy", &other)),
        ("kv import: the input is cut within a line", Kv::new().fed("import", &format!("{}{{\"ke", line(1)))),
        ("kv import: the input is cut between lines", Kv::new().fed("import", &line(1))),
        ("kv import: a line is not JSON", Kv::new().fed("import", "put k v\n")),
        ("kv import: a line has no value", Kv::new().fed("import", "{\"key\":\"k\"}\n")),
        ("kv import: a value is a number", Kv::new().fed("import", "{\"key\":\"k\",\"value\":1}\n")),
        ("kv import: pairs are missing", {
            Kv::new().fed("import", &format!("{}{{\"end\":{{\"pairs\":2}}}}\n", line(1)))
        }),
        ("kv import: a value is too long", {
            Kv::new().fed(
                "--value-len-max 2 import",
                &format!("{}{}", line(1), line(2).replace("\"v\"", "\"vvv\"")),
            )
        }),
        ("kv import: a line is too long", {
            Kv::new().fed(
                "--value-len-max 2 import",
                &line(1).replace("\"v\"", &format!("\"{}\"", "v".repeat(1000))),
            )
        }),
        ("kv import --format csv: it has no header", Kv::new().fed("import --format csv", "a,b\n")),
        (
            "kv import --format csv: a row has one field",
            Kv::new().fed("import --format csv", "key,value\na,b\nc\n"),
        ),
        ("kv import --format resp: the input is cut", {
            Kv::new().fed("import --format resp", "*3\r\n$3\r\nSET\r\n")
        }),
        ("kv import --format resp: another command", {
            Kv::new().fed("import --format resp", "*2\r\n$3\r\nDEL\r\n$1\r\na\r\n")
        }),
        ("kv import --format resp: the input is no command", {
            Kv::new().fed("import --format resp", "SET a 1\r\n")
        }),
        (
            "kv import --format csv: an unknown encoding",
            Kv::new().fed("import --format csv", "key,value,encoding\na,b,hex\n"),
        ),
    ]
}
