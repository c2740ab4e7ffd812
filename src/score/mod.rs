//! How much each unit of a U-Net matters.
