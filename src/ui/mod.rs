//! Readers of events: bars, plain lines, JSON. The only place that prints while work goes on.
