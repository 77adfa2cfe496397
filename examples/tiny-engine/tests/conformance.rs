//! The suite against the tiny engine, and a case of the engine's own.

use kv_core::fs::FsExt;
use kv_tests::{Case, CaseResult, Context, Level, Policy, Setup, ensure};

const CASES: &[Case] = &[Case {
    id: "own::required_a_sync_forgets_deleted_values",
    level: Level::Required,
    needs: &[],
    summary: "After a sync no file of the store holds the bytes of a deleted or overwritten value.",
    run: a_sync_forgets_deleted_values,
}];

fn a_sync_forgets_deleted_values(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    for rig in [context.rig(setup)?, context.real_rig(setup)?] {
        let (fs, engine) = (rig.fs(), rig.open()?);
        engine.put(b"deleted", b"secret")?;
        engine.put(b"overwritten", b"secret")?;
        engine.sync()?;
        engine.delete(b"deleted")?;
        engine.put(b"overwritten", b"public")?;
        engine.sync()?;
        for name in fs.list(rig.dir())? {
            let bytes = fs.read_file(&rig.dir().join(&name))?;
            let holds_secret = bytes.windows(6).any(|window| window == b"secret");
            ensure!(!holds_secret, "after a sync the file {name} still holds a deleted value");
        }
    }
    Ok(())
}

kv_tests::main!(tiny_engine::TinyFactory, cases = CASES);
