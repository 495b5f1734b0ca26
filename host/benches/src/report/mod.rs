//! The results as text and picture, and what belongs beside them: machine, sizes, goals.

pub mod goals;
pub mod machine;
pub mod plot;
pub mod sizes;
pub mod table;
