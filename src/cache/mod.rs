//! Bytes by key: artefacts, their manifests, damage and locks. Knows no stage.
