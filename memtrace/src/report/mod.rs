//! What a user reads.
//!
//! Results of the rooms before go in, text comes out. Nothing is computed here but the layout.

pub mod escape;
