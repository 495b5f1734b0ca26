//! What the operating system refused.

use std::io;

use rustix::io::Errno;

/// What the operating system refused, if that is the cause: it is never the guest's fault.
pub(crate) fn refused_by_system(error: &wasmtime::Error) -> Option<io::Error> {
    error.chain().find_map(|cause| {
        let errno = cause.downcast_ref::<Errno>().map(|errno| errno.raw_os_error());
        let errno = errno.or_else(|| cause.downcast_ref::<io::Error>()?.raw_os_error());
        errno.map(io::Error::from_raw_os_error)
    })
}
