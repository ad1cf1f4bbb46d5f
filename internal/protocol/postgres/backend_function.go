package postgres

// functionCallResponse holds what a function returned. It is covered as a row of one
// column, which it differs from by the number of columns in front.
func (b *backend) functionCallResponse(frame []byte) error {
	if b.current.kind != kindFunctionCall || b.result.index > 0 {
		return b.outOfPlace(frame)
	}
	if !readFunctionCallResponse(frame) {
		return b.malformed(frame)
	}
	if err := b.shape(b.current.result); err != nil {
		return b.withhold(err)
	}
	b.result.index, b.result.shaped = 1, false
	covered := frame[headerSize:]
	if b.result.inspect {
		row, err := b.current.command.Row(append([]byte{0, 1}, covered...))
		if err != nil {
			return b.withhold(err)
		}
		covered = row[2:]
	}
	b.result.outcome.Rows++
	b.result.outcome.Bytes += uint64(headerSize + len(covered))
	out, err := b.out.room()
	if err != nil {
		return err
	}
	return b.out.made(appendMessage(out, msgFunctionCallResponse, covered))
}
