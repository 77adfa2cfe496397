use crate::progress::bytes_text;
use kv_core::{Env, Result};
use kv_log::tail::{Object, State, list, remove};
use serde_json::json;
use std::fmt::Write;

/// Lists the shared memory of all stores, and removes what no opening will need if `to_remove`.
pub(crate) fn tails(to_remove: bool, as_json: bool) -> Result<String> {
    let env = Env::os();
    let mut answer = String::new();
    for one in list(&env)? {
        let is_removed = to_remove && matches!(one.state, State::StoreGone | State::EarlierBoot);
        if is_removed {
            remove(&env, &one.name)?;
        }
        let Object { name, store, bytes, state, .. } = &one;
        let store = store.as_ref().map(|store| store.display().to_string());
        let (state, store_text) = (state_text(state), store.as_deref().unwrap_or("unknown"));
        let _ = if as_json {
            let object = json!({
                "name": name, "store": store, "bytes": bytes, "state": state, "removed": is_removed,
            });
            writeln!(answer, "{object}")
        } else {
            let note = if is_removed { "; removed" } else { "" };
            writeln!(answer, "{name}\t{}\t{store_text}\t{state}{note}", bytes_text(*bytes))
        };
    }
    Ok(answer)
}

fn state_text(state: &State) -> String {
    match state {
        State::InUse => "in use".to_owned(),
        State::Waiting => "waits for the store to be opened".to_owned(),
        State::StoreGone => "the store is gone".to_owned(),
        State::EarlierBoot => "of an earlier boot".to_owned(),
        State::Unreadable(why) => format!("unreadable: {why}"),
        _ => "unknown".to_owned(),
    }
}
