//! How a guest ends without an answer. wit-bindgen has no word for it; a component of another tongue may well do so.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static LEFT: AtomicBool = AtomicBool::new(false);

/// Ends the handler's task as if it had answered. Only before it has waited for anything.
pub async fn leave() -> ! {
    LEFT.store(true, Relaxed);
    loop {
        wit_bindgen::yield_async().await; // to `_export_handle_cabi`
    }
}

/// The bindings as `export!` looks for them, but for the entrance.
#[allow(unsafe_code, missing_docs, reason = "it stands in for what wit-bindgen generates")]
pub mod leaving {
    pub use crate::bindings::exports::wasi::http::handler::*;
    // `export!` asks for `exports::wasi::http::handler` below this.
    pub use crate::leaving as exports;
    pub use crate::leaving as wasi;
    pub use crate::leaving as http;
    pub use crate::leaving as handler;

    /// Starts the handler's task, and says of one that has left that it is done instead of that it waits.
    ///
    /// # Safety
    /// That of the entrance which it stands before.
    pub unsafe fn _export_handle_cabi<T: Guest>(request: i32) -> i32 {
        const EXIT: i32 = 0;
        // SAFETY: the caller's.
        let code = unsafe { crate::bindings::exports::wasi::http::handler::_export_handle_cabi::<T>(request) };
        if super::LEFT.load(super::Relaxed) { EXIT } else { code }
    }
}
