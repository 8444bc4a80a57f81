package main // sql asks a PostgreSQL database that only the agent of edge-1 reaches
import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/culvertdev/culvert/client"
)

func main() {
	c := must(client.New(client.Config{})) // the hub of CULVERT_HUB, or of culvert login
	defer c.Close()
	config := must(pgx.ParseConfig(os.Getenv("DATABASE_URL"))) // postgres://app:password@db.prod:5432/shop
	config.DialFunc = c.EarlyDialer("edge-1")
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil } // the agent's
	db := must(pgx.ConnectConfig(context.Background(), config))
	defer db.Close(context.Background())
	fmt.Println(must(pgx.CollectRows(must(db.Query(context.Background(), "SELECT name FROM fruit")), pgx.RowTo[string])))
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
