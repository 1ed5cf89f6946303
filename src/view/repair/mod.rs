//! What puts the view right behind the writes (rule V6): the comparison of
//! pages with memory, and the look for keys that no row has.

pub mod scan;
pub mod sweep;
