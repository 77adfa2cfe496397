//! The results, in each of their forms: `results.json`, tables on the terminal, and the page.

pub(crate) mod figure;
mod machine;
pub(crate) mod page;
pub(crate) mod results;
pub(crate) mod section;
