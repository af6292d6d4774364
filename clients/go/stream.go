// Streams an answer: an example of a client in Go. README.md tells how it was built and run.
//
//	stream [TARGET] [PROMPT]
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	// Lets Details below show what the server attaches to errors: ErrorInfo, BadRequest, RetryInfo.
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	gatewayv1 "tandem/gateway/v1"
)

// As clients/python/tandem_client/service_config.json: all addresses in turn, and another try
// while no message has come.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [
    {
      "name": [{"service": "tandem.gateway.v1.GatewayService"}],
      "waitForReady": false,
      "retryPolicy": {
        "maxAttempts": 4,
        "initialBackoff": "0.2s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]
      }
    }
  ]
}`

func argument(index int, otherwise string) string {
	if len(os.Args) > index {
		return os.Args[index]
	}
	return otherwise
}

// Prints the answer as it comes.
func stream(client gatewayv1.GatewayServiceClient, prompt string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel() // frees the request's memory on the server, too, when we leave early
	answer, err := client.Generate(ctx, &gatewayv1.GenerateRequest{
		Input: &gatewayv1.GenerateRequest_Chat{Chat: &gatewayv1.Chat{
			Messages: []*gatewayv1.ChatMessage{{Role: "user", Content: prompt}},
		}},
		Stopping: &gatewayv1.Stopping{MaxTokens: 64},
	})
	if err != nil {
		return err
	}
	for {
		response, err := answer.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch event := response.GetEvent().(type) {
		case *gatewayv1.GenerateResponse_Delta:
			fmt.Print(event.Delta.GetText())
		case *gatewayv1.GenerateResponse_Finished:
			fmt.Fprintf(os.Stderr, "\n%d tokens\n", event.Finished.GetUsage().GetOutputTokens())
		}
	}
}

func main() {
	// With grpc-go 1.63 and later: grpc.NewClient, and grpc.WithTransportCredentials of
	// insecure.NewCredentials(); these work in all of 1.x. Retries were off before 1.40 unless
	// GRPC_GO_RETRY=on.
	connection, err := grpc.Dial(argument(1, "localhost:50051"), grpc.WithInsecure(),
		grpc.WithDefaultServiceConfig(serviceConfig))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := gatewayv1.NewGatewayServiceClient(connection)
	if err := stream(client, argument(2, "Why is the sky blue?")); err != nil {
		failure := status.Convert(err)
		log.Fatalf("%s: %s %v", failure.Code(), failure.Message(), failure.Details())
	}
}
