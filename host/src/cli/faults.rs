//! What is wrong with a command line, all of it at once.

use std::fmt;

use crate::http::uri::without_userinfo;

/// Every fault of a configuration, one line each.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these settings cannot be used:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}

impl Faults {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads one flag's text; a fault is kept, named by flag and variable, and the reading goes on.
    pub(crate) fn read<T>(
        &mut self,
        flag: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(text).map_err(|why| self.add(flag, &format!("{:?} {why}", without_userinfo(text)))).ok()
    }

    pub(crate) fn add(&mut self, flag: &str, fault: &str) {
        let variable = flag.trim_start_matches('-').replace('-', "_").to_uppercase();
        self.0.push(format!("{flag} (TAFFRAIL_{variable}): {fault}"));
    }
}
