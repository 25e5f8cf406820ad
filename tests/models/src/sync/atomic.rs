//! Atomics of loom, which takes `SeqCst` for no more than `AcqRel`: what is missing a fence makes
//! up for, on both sides of the access, as some processors need it too.

use loom::sync::atomic;
pub use loom::sync::atomic::Ordering;

fn fenced<T>(order: Ordering, access: impl FnOnce() -> T) -> T {
    if order != Ordering::SeqCst {
        return access();
    }
    atomic::fence(Ordering::SeqCst);
    let value = access();
    atomic::fence(Ordering::SeqCst);
    value
}

macro_rules! atomics {
    ($($name:ident $value:ty: $($method:ident)*;)*) => {$(
        /// As in the standard library.
        #[derive(Debug, Default)]
        pub struct $name(atomic::$name);

        impl $name {
            /// With its first value.
            pub fn new(value: $value) -> Self {
                Self(atomic::$name::new(value))
            }

            /// As in the standard library.
            pub fn load(&self, order: Ordering) -> $value {
                fenced(order, || self.0.load(order))
            }

            /// As in the standard library.
            pub fn store(&self, value: $value, order: Ordering) {
                fenced(order, || self.0.store(value, order));
            }

            /// As in the standard library.
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                fenced(order, || self.0.swap(value, order))
            }

            $(
                /// As in the standard library.
                pub fn $method(&self, value: $value, order: Ordering) -> $value {
                    fenced(order, || self.0.$method(value, order))
                }
            )*
        }
    )*};
}

atomics! {
    AtomicBool bool: fetch_or;
    AtomicU32 u32: fetch_add;
    AtomicU64 u64: fetch_add fetch_max;
    AtomicUsize usize: fetch_add fetch_sub;
}
