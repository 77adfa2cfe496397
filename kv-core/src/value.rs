use bytes::Bytes;
use std::fmt;
use std::ops::Deref;

/// A value read from an engine: an immutable view of bytes that is cheap to clone.
///
/// Cloning copies a pointer and increments a reference count. The engine decides which memory a
/// `Value` keeps alive: a copy of its own, or a larger region that the bytes lie in. So a `Value`
/// that is held for long may keep memory; it never blocks the engine. It derefs to a slice, whose
/// `to_vec` copies the bytes.
///
/// A value compares with slices, arrays, vectors and strings:
///
/// ```
/// use kv_core::Value;
///
/// let value = Value::from(b"abc".as_slice());
/// assert!(value == "abc" && value == b"abc" && value == vec![b'a', b'b', b'c']);
/// assert_eq!(value.to_vec(), b"abc");
/// assert_eq!(format!("{value:?}"), r#"b"abc""#);
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

/// Values equal the bytes that they hold, in any of these types.
macro_rules! equals {
    ($(($($generics:tt)*) $bytes:ty;)*) => { $(
        impl<$($generics)*> PartialEq<$bytes> for Value {
            fn eq(&self, other: &$bytes) -> bool {
                let other: &[u8] = other.as_ref();
                &*self.0 == other
            }
        }

        impl<$($generics)*> PartialEq<Value> for $bytes {
            fn eq(&self, other: &Value) -> bool {
                other == self
            }
        }
    )* };
}

equals! {
    () [u8];
    () &[u8];
    (const N: usize) [u8; N];
    (const N: usize) &[u8; N];
    () Vec<u8>;
    () str;
    () &str;
    () String;
}

/// Longest value that `Debug` shows whole, bytes.
const SHOWN_LEN_MAX: usize = 64;

/// Shows the value as a byte string. Of a long one it shows the first bytes and the length.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..SHOWN_LEN_MAX).filter(|_| self.0.len() > SHOWN_LEN_MAX) {
            Some(first) => write!(f, "b\"{}\"... ({} bytes)", first.escape_ascii(), self.0.len()),
            None => write!(f, "b\"{}\"", self.0.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_equals_its_bytes_in_every_type_and_on_either_side() {
        let value = Value::from(b"abc".as_slice());
        assert_eq!(value, *b"abc".as_slice());
        assert_eq!(value, b"abc".as_slice());
        assert_eq!(value, *b"abc");
        assert_eq!(value, b"abc");
        assert_eq!(value, b"abc".to_vec());
        assert_eq!(value, *"abc");
        assert_eq!(value, "abc");
        assert_eq!(value, "abc".to_owned());
        assert_eq!(b"abc", value);
        assert_eq!("abc", value);
        assert_eq!(b"abc".to_vec(), value);
        assert_eq!(value, Value::from_owner(b"abc".to_vec()));
        assert!(value != "abcd" && value != b"abd" && value != b"");
    }

    #[test]
    fn debug_shows_bytes_and_shortens_long_values() {
        assert_eq!(format!("{:?}", Value::from(b"a\"\0\xff".as_slice())), r#"b"a\"\x00\xff""#);
        assert_eq!(format!("{:?}", Value::default()), r#"b"""#);
        let whole = format!("{:?}", Value::from(vec![b'x'; 64]));
        assert_eq!(whole, format!("b\"{}\"", "x".repeat(64)));
        let long = format!("{:?}", Value::from(vec![b'x'; 1 << 20]));
        assert_eq!(long, format!("b\"{}\"... (1048576 bytes)", "x".repeat(64)));
    }
}
