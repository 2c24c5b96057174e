//! Carries messages between the processes of a system over MQTT 5, in the form that PURISTA 2.x speaks.
