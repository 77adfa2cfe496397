use crate::{Batch, Change, Error, Result};

/// The sizes an engine accepts; anything longer is refused with [`Error::TooLarge`] and changes
/// nothing.
///
/// Three bounds apply. A call is checked against the limits set here. The log format bounds the
/// limits of any engine ([`validate`](Self::validate)). An engine may allow less than the format,
/// and then refuses the options at open with [`Error::InvalidArgument`], which names the limit and
/// its bound; the documentation of its options has the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, bytes. Default 64; at most [`FORMAT_KEY_LEN_MAX`](Self::FORMAT_KEY_LEN_MAX),
    /// 65,535.
    pub key_len_max: usize,
    /// Longest value, bytes. Default 1,048,576 (1 MiB); at most
    /// [`FORMAT_VALUE_LEN_MAX`](Self::FORMAT_VALUE_LEN_MAX), 4,294,967,295, and by
    /// `batch_bytes_max` below that.
    pub value_len_max: usize,
    /// Largest batch, bytes: the sum of its keys and values, and
    /// [`CHANGE_OVERHEAD`](Self::CHANGE_OVERHEAD) for each change. Default 16 MiB. At least one put
    /// with key and value at their limits.
    pub batch_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { key_len_max: 64, value_len_max: 1 << 20, batch_bytes_max: 16 << 20 }
    }
}

impl Limits {
    /// Longest key the shared log format can hold, bytes.
    pub const FORMAT_KEY_LEN_MAX: usize = 65_535;
    /// Longest value the shared log format can hold, bytes.
    pub const FORMAT_VALUE_LEN_MAX: usize = u32::MAX as usize;
    /// Counted for each change of a batch beside its key and value, bytes: as much as an engine
    /// adds to them at most when it stores them. So a batch within its limit is one that an engine
    /// can store.
    pub const CHANGE_OVERHEAD: usize = 32;

    /// Checks that the limits make sense together.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the limit that is out of range.
    pub fn validate(&self) -> Result<()> {
        if self.key_len_max > Self::FORMAT_KEY_LEN_MAX {
            return Err(Error::InvalidArgument(format!(
                "key_len_max is {}, the format holds keys of at most {} bytes",
                self.key_len_max,
                Self::FORMAT_KEY_LEN_MAX
            )));
        }
        if self.value_len_max > Self::FORMAT_VALUE_LEN_MAX {
            return Err(Error::InvalidArgument(format!(
                "value_len_max is {}, the format holds values of at most {} bytes",
                self.value_len_max,
                Self::FORMAT_VALUE_LEN_MAX
            )));
        }
        let put_bytes_max = Self::CHANGE_OVERHEAD + self.key_len_max + self.value_len_max;
        if self.batch_bytes_max < put_bytes_max {
            return Err(Error::InvalidArgument(format!(
                "batch_bytes_max is {}, it must be at least {put_bytes_max}: one put with key and value at their \
                 limits, and {} bytes of overhead",
                self.batch_bytes_max,
                Self::CHANGE_OVERHEAD
            )));
        }
        Ok(())
    }

    /// Checks a key.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it is longer than `key_len_max`.
    #[inline]
    pub fn check_key(&self, key: &[u8]) -> Result<()> {
        check("key", key.len(), self.key_len_max)
    }

    /// Checks a value.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it is longer than `value_len_max`.
    #[inline]
    pub fn check_value(&self, value: &[u8]) -> Result<()> {
        check("value", value.len(), self.value_len_max)
    }

    /// Checks a key to look up or delete, of a store with keys of up to `present_key_len_max` bytes
    /// from the time before its limits were lowered.
    ///
    /// # Errors
    /// As for [`check_key`](Self::check_key), if no such key can be there.
    #[inline]
    pub fn check_key_with(&self, key: &[u8], present_key_len_max: usize) -> Result<()> {
        if key.len() <= present_key_len_max { Ok(()) } else { self.check_key(key) }
    }

    /// Checks every entry of a batch, and their sum, [overhead](Self::CHANGE_OVERHEAD) included.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for the first entry, or the sum, that is over its limit.
    pub fn check_batch(&self, batch: &Batch) -> Result<()> {
        self.check_batch_with(batch, self.key_len_max)
    }

    /// As [`check_batch`](Self::check_batch), of a store with keys of up to `present_key_len_max`
    /// bytes from the time before its limits were lowered: such keys can be deleted.
    ///
    /// # Errors
    /// As there.
    pub fn check_batch_with(&self, batch: &Batch, present_key_len_max: usize) -> Result<()> {
        let mut bytes = 0usize;
        for change in batch.changes() {
            if let Change::Put { key, value } = change {
                self.check_key(key)?;
                self.check_value(value)?;
                bytes = bytes.saturating_add(value.len());
            } else {
                self.check_key_with(change.key(), present_key_len_max)?;
            }
            bytes = bytes.saturating_add(Self::CHANGE_OVERHEAD + change.key().len());
        }
        check("batch", bytes, self.batch_bytes_max)
    }
}

#[inline]
fn check(what: &'static str, len: usize, limit: usize) -> Result<()> {
    if len > limit { Err(Error::TooLarge { what, len, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_defaults_are_the_real_ones() {
        let limits = Limits::default();
        assert_eq!((limits.key_len_max, limits.value_len_max), (64, 1_048_576));
        assert_eq!(limits.batch_bytes_max, 16 * 1024 * 1024);
        limits.validate().unwrap();
    }

    #[test]
    fn one_past_each_limit_is_refused_and_the_limit_is_not() {
        let limits = Limits { key_len_max: 3, value_len_max: 5, batch_bytes_max: 72 };
        limits.validate().unwrap();
        assert!(limits.check_key(b"abc").is_ok() && limits.check_value(b"12345").is_ok());
        assert!(matches!(limits.check_key(b"abcd"), Err(Error::TooLarge { what: "key", len: 4, limit: 3 })));
        assert!(matches!(limits.check_value(b"123456"), Err(Error::TooLarge { what: "value", .. })));

        let mut batch = Batch::new();
        batch.put(b"abc", b"12345").delete(b"");
        assert!(limits.check_batch(&batch).is_ok());
        // Every change counts, one of the same key too.
        batch.delete(b"");
        assert!(matches!(
            limits.check_batch(&batch),
            Err(Error::TooLarge { what: "batch", len: 104, limit: 72 })
        ));
        let mut bad_key = Batch::new();
        bad_key.delete(b"abcd");
        assert!(matches!(limits.check_batch(&bad_key), Err(Error::TooLarge { what: "key", .. })));
        let mut bad_value = Batch::new();
        bad_value.put(b"", b"123456");
        assert!(matches!(limits.check_batch(&bad_value), Err(Error::TooLarge { what: "value", .. })));
    }

    #[test]
    fn limits_that_the_format_cannot_hold_are_refused() {
        let base = Limits { batch_bytes_max: usize::MAX, ..Limits::default() };
        assert!(Limits { key_len_max: 65_535, ..base }.validate().is_ok());
        assert!(Limits { key_len_max: 65_536, ..base }.validate().is_err());
        assert!(Limits { value_len_max: 1 << 32, ..base }.validate().is_err());
        assert!(Limits { batch_bytes_max: 100, ..Limits::default() }.validate().is_err());
        let one_put = |batch_bytes_max| Limits { key_len_max: 3, value_len_max: 5, batch_bytes_max };
        assert!(one_put(40).validate().is_ok());
        let told = one_put(39).validate().unwrap_err().to_string();
        assert!(told.contains("batch_bytes_max is 39") && told.contains("at least 40"), "{told}");
    }
}
