//! Values whose drop code is compiled only in this crate.
//!
//! Dropping a pool or a transaction of the driver returns its connection, and all code for that is generic. Every crate
//! in which such a value can be dropped would compile the driver's pool and protocol again.

trait Hold<T>: Send + Sync {
    fn get(&self) -> &T;
    fn take(self: Box<Self>) -> T;
}

impl<T: Send + Sync> Hold<T> for T {
    fn get(&self) -> &T {
        self
    }

    fn take(self: Box<Self>) -> T {
        *self
    }
}

/// A value behind a trait object.
pub(crate) struct Sealed<T>(Box<dyn Hold<T>>);

impl<T> std::fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed")
    }
}

impl<T: Send + Sync + 'static> Sealed<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Box::new(value))
    }
}

impl<T> Sealed<T> {
    pub(crate) fn get(&self) -> &T {
        (*self.0).get()
    }

    pub(crate) fn take(self) -> T {
        self.0.take()
    }
}
