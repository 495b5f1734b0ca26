//! From a component file to a component that can be instantiated.

mod compiler;
mod imports;
mod precompiled;
mod source;

pub(crate) use compiler::{Interrupt, STANDARD_STREAM};
pub(crate) use source::{Revision, Source, precompile};
