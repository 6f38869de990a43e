// Hostileca runs CAs that don't play fair, one for each mode; see [hostile.Main].
package main

import "autocertd/internal/testbed/hostile"

func main() { hostile.Main() }
