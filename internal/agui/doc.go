// Package agui speaks AG-UI 1.0, the protocol between agents and user interfaces
// (docs.ag-ui.com): it reads a RunAgentInput and turns the events of a run into
// AG-UI's. It knows no HTTP.
//
// An AG-UI run is one request's. It shows a run of ours from its beginning, or from
// the question that it stopped at, to its end or to the next question:
//
//	ours      RUN_STARTED … APPROVAL_REQUESTED … APPROVAL_RESOLVED … RUN_FINISHED
//	AG-UI     RUN_STARTED … RUN_FINISHED         RUN_STARTED …       RUN_FINISHED
//	first request ┘         outcome: interrupt   └ second request    outcome: success
//
// Nothing is remembered between the two: what the first has shown follows from our
// run's stored events and from the interrupts that the second answers. It is all up to
// the last APPROVAL_REQUESTED among them. So a request that is made again gives the
// same events, with the same ids of messages.
//
// The events come from a worker, which may be hostile. Whatever it sends, and in
// whatever order, what comes out of here keeps AG-UI's rules: nothing is continued that
// was not opened, and everything is closed before the one ending.
package agui
