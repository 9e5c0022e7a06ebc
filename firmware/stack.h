/* The paint that the start-up code leaves between .bss and the top of the stack; included by C and by assembler. */
#ifndef STROP_STACK_H
#define STROP_STACK_H

#define STROP_STACK_PAINT 0xC5C5C5C5

#endif
