//! Reads the view.
