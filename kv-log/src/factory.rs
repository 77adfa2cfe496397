//! Factories: how a suite, a benchmark or a tool opens [`LogEngine`]s.

use kv_core::{Capabilities, Engine, EngineFactory, Env, OpenOptions, Result, Scale};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::engine::LogEngine;
use crate::options::Options;

/// Opens [`LogEngine`]s with default [`Options`] for a suite, a benchmark or a tool.
///
/// [`LogFactory::new`] makes a factory for other options.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogFactory;

impl LogFactory {
    /// A factory that opens stores with `options`.
    ///
    /// Each open replaces what its [`OpenOptions`] name: `create_if_missing`, `read_only`,
    /// `persistence`, `retention` and `limits`. At [`Scale::Tiny`], segments, unflushed bytes and
    /// the index are at most as large as those of [`LogFactory`] at that scale, and a memory budget
    /// is the least one that they allow.
    ///
    /// ```
    /// use kv_log::{EngineFactory, Env, LogFactory, OpenOptions, Options};
    ///
    /// let factory = LogFactory::new(Options { direct_io: false, ..Options::default() });
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = factory.open(dir.path(), &Env::os(), &OpenOptions::default())?;
    /// store.put(b"key", b"value")?;
    /// # Ok::<(), kv_log::Error>(())
    /// ```
    #[expect(clippy::new_ret_no_self, reason = "the factory of the default options needs no field")]
    pub fn new(options: Options) -> ConfiguredLogFactory {
        LogFactory::with("log, configured", move |open| configured(&options, open))
    }

    /// A factory that opens stores with the options that `options` returns for an open, and that
    /// names itself `name` in reports.
    ///
    /// ```
    /// use kv_log::{LogFactory, Options};
    ///
    /// // As LogFactory, but with few open files.
    /// let few = |open: &_| Options { open_files_max: 2, ..Options::from(open) };
    /// let factory = LogFactory::with("log, few files", few);
    /// # let _ = factory;
    /// ```
    pub fn with(
        name: &'static str,
        options: impl Fn(&OpenOptions) -> Options + Send + Sync + 'static,
    ) -> ConfiguredLogFactory {
        ConfiguredLogFactory { name, options: Arc::new(options) }
    }
}

impl EngineFactory for LogFactory {
    fn name(&self) -> &'static str {
        "log"
    }

    fn capabilities(&self) -> Capabilities {
        let process_safe = cfg!(target_os = "linux");
        let capabilities = Capabilities::new().checkpoint(true).compact(true).read_only(true);
        capabilities.point_in_time(true).process_safe(process_safe)
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(LogEngine::open_in(dir, env, Options::from(options))?))
    }
}

/// Opens [`LogEngine`]s with options of the caller's choice: made by [`LogFactory::new`] and
/// [`LogFactory::with`].
#[derive(Clone)]
pub struct ConfiguredLogFactory {
    name: &'static str,
    options: Arc<dyn Fn(&OpenOptions) -> Options + Send + Sync>,
}

impl EngineFactory for ConfiguredLogFactory {
    fn name(&self) -> &'static str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        LogFactory.capabilities()
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(LogEngine::open_in(dir, env, (self.options)(options))?))
    }
}

impl fmt::Debug for ConfiguredLogFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfiguredLogFactory").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `options` for an open that asks for `open`.
fn configured(options: &Options, open: &OpenOptions) -> Options {
    let asked = Options::from(open);
    let options = Options {
        create_if_missing: asked.create_if_missing,
        read_only: asked.read_only,
        persistence: asked.persistence,
        retention: asked.retention,
        limits: asked.limits,
        ..options.clone()
    };
    match open.scale {
        Scale::Normal => options,
        Scale::Tiny => Options {
            segment_bytes: options.segment_bytes.min(asked.segment_bytes),
            unflushed_bytes_max: options.unflushed_bytes_max.min(asked.unflushed_bytes_max),
            index_shards: options.index_shards.min(asked.index_shards),
            ..options
        }
        .with_least_memory_budget(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{KeepPast, Limits, Manual};

    #[test]
    fn an_open_replaces_what_it_names_and_nothing_else() {
        let options = Options {
            segment_bytes: 1 << 20,
            unflushed_bytes_max: 1 << 20,
            memory_budget: Some(64 << 20),
            direct_io: false,
            open_files_max: 3,
            ..Options::default()
        };
        let limits = Limits { key_len_max: 9, ..Limits::default() };
        let open = OpenOptions {
            create_if_missing: false,
            read_only: true,
            persistence: Arc::new(Manual),
            retention: Arc::new(KeepPast::all()),
            limits,
            scale: Scale::Normal,
        };
        let normal = configured(&options, &open);
        assert!(!normal.create_if_missing && normal.read_only && normal.limits == limits);
        assert_eq!(format!("{:?}", normal.persistence), "Manual");
        assert!(format!("{:?}", normal.retention).starts_with("KeepPast"));
        assert_eq!((normal.direct_io, normal.open_files_max, normal.index_shards), (false, 3, 256));
        assert_eq!((normal.segment_bytes, normal.memory_budget), (1 << 20, Some(64 << 20)));

        let tiny = configured(&options, &OpenOptions { scale: Scale::Tiny, ..open });
        assert_eq!((tiny.segment_bytes, tiny.unflushed_bytes_max, tiny.index_shards), (2048, 4096, 4));
        assert_eq!((tiny.memory_budget, tiny.open_files_max), (Some(4096 + 5 * 2048), 3));
        tiny.validate().unwrap();
    }

    #[test]
    fn without_a_budget_there_is_none_at_any_scale() {
        for scale in [Scale::Normal, Scale::Tiny] {
            let open = OpenOptions { scale, ..OpenOptions::default() };
            assert_eq!(configured(&Options::default(), &open).memory_budget, None);
        }
    }
}
