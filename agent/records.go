package agent

import (
	"google.golang.org/grpc"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

// Records implements agentpb.AgentServer: it streams records from now on.
func (s *Server) Records(r *agentpb.RecordsRequest, stream grpc.ServerStreamingServer[agentpb.Record]) error {
	id := r.GetInstance()
	if snap := s.agent.Snapshot(); id != "" && snap != nil {
		in, err := snap.Find(id)
		if err != nil {
			return statusOf(invalid(err))
		}
		id = in.ID
	}
	sub, cancel := s.agent.records.Subscribe(id, r.GetKinds())
	defer cancel()
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case d := <-sub.C:
			if err := stream.Send(recordToPB(d)); err != nil {
				return err
			}
		}
	}
}
