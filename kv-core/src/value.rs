use bytes::Bytes;
use std::fmt;
use std::ops::Deref;

/// A value read from an engine: a cheap-to-clone, immutable view of bytes.
///
/// Cloning copies a pointer and bumps a reference count. What a `Value` keeps alive is up to the
/// engine (its own copy, or a larger region that the bytes lie in): holding one for long may pin
/// memory, never correctness. `to_vec` (of the slice it derefs to) copies the bytes out.
///
/// ```
/// use kv_core::Value;
/// let value = Value::from(b"abc".as_slice());
/// assert_eq!(&*value, b"abc");
/// assert_eq!(value.to_vec(), b"abc".to_vec());
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(Bytes);

impl Value {
    /// A view into memory that `owner` keeps alive; no byte is copied.
    pub fn from_owner<T: AsRef<[u8]> + Send + 'static>(owner: T) -> Self {
        Value(Bytes::from_owner(owner))
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Copies the bytes.
impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Value(Bytes::copy_from_slice(bytes))
    }
}

/// Takes the bytes over without copying.
impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Value(Bytes::from(bytes))
    }
}

impl PartialEq<[u8]> for Value {
    fn eq(&self, other: &[u8]) -> bool {
        &**self == other
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
